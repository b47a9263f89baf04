#include "data/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr int kMaxDepth = 16;

struct Part {
  TextRange range;
  bool is_match;
};

std::vector<Part> FindAll(std::string_view text, TextRange word, const std::string& pattern) {
  std::vector<Part> parts;
  size_t from = word.first;
  const std::string_view bounded = text.substr(0, word.second);
  for (size_t hit; (hit = bounded.find(pattern, from)) != std::string_view::npos;) {
    if (hit > from) parts.push_back({{from, hit}, false});
    from = hit + pattern.size();
    parts.push_back({{hit, from}, true});
  }
  if (from < word.second) parts.push_back({{from, word.second}, false});
  return parts;
}

}  // namespace

absl::Status PreTokenizer::Add(const JsonPart& part, int depth) {
  if (depth > kMaxDepth) return part.Error("nested too deeply");
  OSLER_ASSIGN_OR_RETURN(const std::string type, TypeOf(part));
  if (type == "Sequence") {
    OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "pretokenizers"}));
    const JsonPart list = part.at("pretokenizers");
    OSLER_RETURN_IF_ERROR(ExpectArray(list));
    for (size_t i = 0; i < list.value->size(); ++i)
      OSLER_RETURN_IF_ERROR(Add(list.at(i), depth + 1));
    return absl::OkStatus();
  }
  if (type != "Split") {
    return part.Error(absl::StrCat("unknown pre-tokenizer \"", type,
                                   "\": this build knows Split (on a String) and Sequence"));
  }
  OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "pattern", "behavior", "invert"}));
  OSLER_ASSIGN_OR_RETURN(std::string pattern, ExpectStringPattern(part.at("pattern")));
  OSLER_ASSIGN_OR_RETURN(const bool invert, ExpectBool(part.at("invert")));
  if (invert) return part.at("invert").Error("an inverted Split is not supported by this build");
  OSLER_ASSIGN_OR_RETURN(const std::string behavior, ExpectString(part.at("behavior")));
  static constexpr std::pair<std::string_view, Behavior> kBehaviors[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  for (const auto& [name, value] : kBehaviors) {
    if (behavior != name) continue;
    steps_.push_back({std::move(pattern), value});
    return absl::OkStatus();
  }
  return part.at("behavior").Error(absl::StrCat("unknown behavior \"", behavior, "\""));
}

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const JsonPart& part) {
  PreTokenizer made;
  if (!part.is_null()) OSLER_RETURN_IF_ERROR(made.Add(part, 0));
  return made;
}

void PreTokenizer::SplitWord(std::string_view text, TextRange word, const Step& step,
                             std::vector<TextRange>& out) {
  std::vector<Part> parts = FindAll(text, word, step.pattern);
  const bool backwards = step.behavior == Behavior::kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  const size_t first = out.size();
  bool previous_match = false;
  for (const Part& part : parts) {
    bool join = false;
    switch (step.behavior) {
      case Behavior::kRemoved:
        if (part.is_match) continue;
        break;
      case Behavior::kIsolated: break;
      case Behavior::kMergedWithPrevious:
      case Behavior::kMergedWithNext: join = part.is_match && !previous_match; break;
      case Behavior::kContiguous: join = part.is_match == previous_match; break;
    }
    previous_match = part.is_match;
    if (!join || out.size() == first) {
      out.push_back(part.range);
    } else if (backwards) {
      out.back().first = part.range.first;
    } else {
      out.back().second = part.range.second;
    }
  }
  if (backwards) std::reverse(out.begin() + static_cast<ptrdiff_t>(first), out.end());
}

std::vector<TextRange> PreTokenizer::Split(std::string_view text) const {
  std::vector<TextRange> words;
  if (!text.empty()) words.emplace_back(0, text.size());
  for (const Step& step : steps_) {
    std::vector<TextRange> next;
    for (const TextRange& word : words) SplitWord(text, word, step, next);
    words = std::move(next);
  }
  return words;
}

}  // namespace osler
