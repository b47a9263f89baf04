#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "data/plan.h"

namespace osler {
namespace {

// No stream comes near it, and 12 such numbers stay below 200 bytes.
constexpr int64_t kMaxCount = 100'000'000'000'000;
constexpr size_t kMaxSources = 64;

bool ParseCounts(absl::string_view text, std::vector<int64_t>* counts) {
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    int64_t value = 0;
    const bool digits =
        !item.empty() && item.find_first_not_of("0123456789") == absl::string_view::npos;
    if (!digits || !absl::SimpleAtoi(item, &value) || value > kMaxCount) return false;
    counts->push_back(value);
  }
  return true;
}

}  // namespace

std::string Cursor::Serialize() const {
  return absl::StrCat(pack, ",", epoch, ",", window, ",", pack_in_window, ":",
                      absl::StrJoin(taken, ","));
}

absl::StatusOr<Cursor> Cursor::Parse(const std::string& text) {
  const std::vector<absl::string_view> halves = absl::StrSplit(text, ':');
  std::vector<int64_t> place;
  Cursor cursor;
  if (halves.size() != 2 || !ParseCounts(halves[0], &place) || place.size() != 4 ||
      !ParseCounts(halves[1], &cursor.taken) || cursor.taken.size() > kMaxSources) {
    return DataError(
        "the saved position of the data stream is damaged: start from another checkpoint");
  }
  cursor.pack = place[0];
  cursor.epoch = place[1];
  cursor.window = place[2];
  cursor.pack_in_window = place[3];
  return cursor;
}

}  // namespace osler
