#include "trainer/verify/layout.h"

#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr int kMostRanks = 1024;
constexpr std::string_view kGrammar =
    "a layout is parts joined by dots: pipelineN, dataN, shardN, contextN, tensorN, and zero1 to "
    "zero3 (with shard), interleaveN (with pipeline), ring or gather (with context), recompute or "
    "selective; for example shard2.tensor2.zero3";

absl::Status Wrong(std::string_view layout, std::string_view what) {
  return ConfigError(absl::StrCat("layout \"", std::string(layout), "\": ", std::string(what)));
}

// "shard2" → {"shard", 2}; a word without a number has none.
struct Part {
  std::string word;
  std::optional<int> number;
};

absl::StatusOr<Part> ReadPart(std::string_view layout, std::string_view text) {
  size_t letters = 0;
  while (letters < text.size() && absl::ascii_isalpha(static_cast<unsigned char>(text[letters])))
    ++letters;
  Part part{std::string(text.substr(0, letters)), std::nullopt};
  if (letters == text.size()) return part;
  int number = 0;
  if (!absl::SimpleAtoi(std::string(text.substr(letters)), &number) || number < 1 ||
      number > kMostRanks) {
    return Wrong(layout,
                 absl::StrCat("\"", std::string(text), "\" does not end in a number from 1 to ",
                              kMostRanks, "; ", std::string(kGrammar)));
  }
  part.number = number;
  return part;
}

absl::Status TakePart(std::string_view text, const Part& part, VerifyLayout& layout) {
  const auto needs_number = [&]() -> absl::Status {
    if (part.number.has_value()) return absl::OkStatus();
    return Wrong(text, absl::StrCat("\"", part.word, "\" needs a number: ", part.word, "2"));
  };
  for (size_t a = 0; a < kAxes; ++a) {
    if (part.word != kAxisNames[a]) continue;
    OSLER_RETURN_IF_ERROR(needs_number());
    layout.shape.sizes[a] = *part.number;
    return absl::OkStatus();
  }
  if (part.word == "zero" || part.word == "interleave") {
    OSLER_RETURN_IF_ERROR(needs_number());
    if (part.word == "interleave") {
      layout.interleave = *part.number;
      return absl::OkStatus();
    }
    if (*part.number > 3) return Wrong(text, "ZeRO has levels 1, 2 and 3");
    layout.zero = *part.number;
    return absl::OkStatus();
  }
  const bool method = part.word == "ring" || part.word == "gather";
  if (!part.number.has_value() && method) {
    layout.context_method = part.word == "ring" ? ContextMethod::kRing : ContextMethod::kGather;
    return absl::OkStatus();
  }
  if (!part.number.has_value() && (part.word == "recompute" || part.word == "selective")) {
    layout.recompute = part.word == "recompute" ? RecomputeMode::kFull : RecomputeMode::kSelective;
    return absl::OkStatus();
  }
  return Wrong(text, absl::StrCat("\"", part.word, part.number.has_value() ? "N" : "",
                                  "\" is not known; ", std::string(kGrammar)));
}

// An option without its axis would be checked by nobody.
absl::Status CheckOptions(std::string_view text, const std::set<std::string>& words,
                          const VerifyLayout& layout) {
  const auto needs = [&](const char* word, Axis axis) -> absl::Status {
    if (!words.contains(word) || layout.shape.size(axis) > 1) return absl::OkStatus();
    const std::string name(kAxisNames[static_cast<size_t>(axis)]);
    return Wrong(text, absl::StrCat(word, " says nothing without ", name, "2 or more"));
  };
  OSLER_RETURN_IF_ERROR(needs("zero", Axis::kShard));
  OSLER_RETURN_IF_ERROR(needs("interleave", Axis::kPipeline));
  OSLER_RETURN_IF_ERROR(needs("ring", Axis::kContext));
  OSLER_RETURN_IF_ERROR(needs("gather", Axis::kContext));
  if (words.contains("ring") && words.contains("gather"))
    return Wrong(text, "ring and gather exclude each other");
  if (words.contains("recompute") && words.contains("selective"))
    return Wrong(text, "recompute and selective exclude each other");
  if (layout.ranks() > kMostRanks)
    return Wrong(text, absl::StrCat("needs more than ", kMostRanks, " ranks"));
  return absl::OkStatus();
}

std::string NameOf(const VerifyLayout& layout) {
  std::vector<std::string> parts = NamesOf(layout.shape);
  if (parts.empty()) parts.emplace_back("data1");
  if (layout.shape.size(Axis::kShard) > 1) parts.push_back(absl::StrCat("zero", layout.zero));
  if (layout.interleave > 1) parts.push_back(absl::StrCat("interleave", layout.interleave));
  if (layout.context_method == ContextMethod::kRing) parts.emplace_back("ring");
  if (layout.context_method == ContextMethod::kGather) parts.emplace_back("gather");
  if (layout.recompute == RecomputeMode::kFull) parts.emplace_back("recompute");
  if (layout.recompute == RecomputeMode::kSelective) parts.emplace_back("selective");
  return absl::StrJoin(parts, ".");
}

}  // namespace

int VerifyLayout::ranks() const {
  int64_t ranks = 1;
  for (const int size : shape.sizes) ranks = std::min<int64_t>(ranks * size, kMostRanks + 1);
  return static_cast<int>(ranks);
}

absl::StatusOr<VerifyLayout> ParseVerifyLayout(std::string_view text) {
  VerifyLayout layout;
  std::set<std::string> words;
  const std::string spelled(text);
  for (const std::string& item : std::vector<std::string>(absl::StrSplit(spelled, '.'))) {
    OSLER_ASSIGN_OR_RETURN(const Part part, ReadPart(text, item));
    if (!words.insert(part.word).second)
      return Wrong(text, absl::StrCat("\"", part.word, "\" is given twice"));
    OSLER_RETURN_IF_ERROR(TakePart(text, part, layout));
  }
  OSLER_RETURN_IF_ERROR(CheckOptions(text, words, layout));
  layout.name = NameOf(layout);
  return layout;
}

absl::StatusOr<std::vector<VerifyLayout>> ParseVerifyLayouts(std::string_view list) {
  std::vector<VerifyLayout> layouts;
  const std::string spelled(list);
  for (const std::string& item : std::vector<std::string>(absl::StrSplit(spelled, ','))) {
    const std::string text(absl::StripAsciiWhitespace(item));
    if (text.empty()) {
      return ConfigError(absl::StrCat("the list of layouts \"", spelled, "\" has an empty place; ",
                                      std::string(kGrammar)));
    }
    OSLER_ASSIGN_OR_RETURN(VerifyLayout layout, ParseVerifyLayout(text));
    layouts.push_back(std::move(layout));
  }
  return layouts;
}

std::string_view StandardVerifyLayouts() {
  return "data2,"
         "shard2.zero1,shard2.zero2,shard2.zero3,shard2.zero3.recompute,"
         "tensor2,tensor4,"
         "context2.ring,context2.gather,context4.ring,context4.gather,"
         "pipeline2,pipeline2.interleave2,"
         "data2.shard2.zero2,shard2.tensor2.zero3,shard2.context2.zero2,"
         "context2.tensor2.selective,data2.context2.tensor2,pipeline2.shard2.tensor2.zero3";
}

}  // namespace osler
