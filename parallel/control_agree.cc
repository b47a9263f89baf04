#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "parallel/control_plane.h"

namespace osler {
namespace {

// The first line that two texts do not share, on either side.
std::pair<std::string, std::string> FirstDifference(const std::string& a, const std::string& b) {
  const std::vector<std::string> left = absl::StrSplit(a, '\n'), right = absl::StrSplit(b, '\n');
  const auto [x, y] = std::mismatch(left.begin(), left.end(), right.begin(), right.end());
  const auto line = [](auto at, auto end) {
    return at == end ? std::string("nothing") : std::string(absl::StripAsciiWhitespace(*at));
  };
  return {line(x, left.end()), line(y, right.end())};
}

}  // namespace

absl::Status CheckSameOnAllRanks(ControlPlane& control, std::string_view what,
                                 const std::string& text) {
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> digests,
                         control.Exchange("digest", Sha256Hex(text)));
  const auto other = std::find_if(digests.begin(), digests.end(),
                                  [&](const std::string& d) { return d != digests[0]; });
  if (other == digests.end()) return absl::OkStatus();
  const auto rank = static_cast<size_t>(other - digests.begin());
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> texts, control.Exchange("text", text));
  const auto [mine, theirs] = FirstDifference(texts[0], texts[rank]);
  return ConfigError(absl::StrCat("rank ", rank, " has another ",
                                  absl::string_view(what.data(), what.size()), " than rank 0: '",
                                  theirs, "' where rank 0 has '", mine,
                                  "'; start every rank with the same file and flags"));
}

}  // namespace osler
