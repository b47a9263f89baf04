#include "trainer/verify/problem.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "trainer/verify/tiny_model.h"

namespace osler {
namespace {

// One pack leaves readers without any; the others divide by none of the layouts.
constexpr std::array<int, 5> kPacksOfStep{5, 1, 3, 2, 5};
constexpr uint64_t kLongestDocument = 48;

Pack RandomPack(uint64_t key, int64_t number, int64_t vocab_size) {
  Pack pack;
  pack.number = number;
  const uint64_t documents = 2 + PhiloxBits(key, 0) % 4;
  for (uint64_t doc = 1; doc <= documents; ++doc) {
    pack.doc_starts.push_back(static_cast<int32_t>(pack.tokens.size()));
    const uint64_t length = 1 + PhiloxBits(key, doc) % (doc == 2 ? 3 : kLongestDocument);
    for (uint64_t t = 0; t < length; ++t) {
      const uint64_t bits = PhiloxBits(key, t, doc);
      pack.tokens.push_back(static_cast<int32_t>(bits % static_cast<uint64_t>(vocab_size)));
      const bool ignored = t == 0 || (bits >> 32) % 4 == 0;
      pack.labels.push_back(ignored ? kIgnore : pack.tokens.back());
    }
  }
  return pack;
}

std::vector<std::vector<Pack>> RandomSteps(uint64_t seed, int64_t vocab_size) {
  std::vector<std::vector<Pack>> steps;
  int64_t number = 0;
  for (const int count : kPacksOfStep) {
    std::vector<Pack>& packs = steps.emplace_back();
    for (int i = 0; i < count; ++i, ++number) {
      packs.push_back(
          RandomPack(PhiloxKey(seed, absl::StrCat("verify/pack/", number)), number, vocab_size));
    }
    // One that teaches nothing, where others do.
    if (count == kPacksOfStep.front()) packs[1].labels.assign(packs[1].labels.size(), kIgnore);
  }
  return steps;
}

}  // namespace

absl::StatusOr<VerifyProblem> MakeVerifyProblem(std::string_view config_json,
                                                const std::string& name, uint64_t seed) {
  OSLER_ASSIGN_OR_RETURN(const std::string tiny, TinyConfig(config_json, name));
  VerifyProblem problem;
  OSLER_ASSIGN_OR_RETURN(problem.spec, ParseModelSpec(tiny, absl::StrCat(name, " (made tiny)")));
  problem.parameters = DrawParameters(problem.spec, seed);
  problem.steps = RandomSteps(seed, problem.spec.vocab_size);
  problem.clip_norm = 0.05;
  return problem;
}

}  // namespace osler
