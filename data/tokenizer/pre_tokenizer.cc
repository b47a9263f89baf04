#include "data/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr int kMaxDepth = 16;

// GPT-2's pattern: what ByteLevel splits by when it is told to.
constexpr char kByteLevelPattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

absl::Status PreTokenizer::Add(const JsonPart& part, int depth) {
  if (depth > kMaxDepth) return part.Error("nested too deeply");
  OSLER_ASSIGN_OR_RETURN(const std::string type, TypeOf(part));
  if (byte_level_) return part.Error("nothing can follow ByteLevel in this build");
  if (type == "Split") return AddSplit(part);
  if (type == "ByteLevel") return AddByteLevel(part);
  if (type != "Sequence") {
    return part.Error(absl::StrCat("unknown pre-tokenizer \"", type,
                                   "\": this build knows Split, ByteLevel and Sequence"));
  }
  OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "pretokenizers"}));
  const JsonPart list = part.at("pretokenizers");
  OSLER_RETURN_IF_ERROR(ExpectArray(list));
  for (size_t i = 0; i < list.value->size(); ++i) OSLER_RETURN_IF_ERROR(Add(list.at(i), depth + 1));
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddSplit(const JsonPart& part) {
  OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "pattern", "behavior", "invert"}));
  Step step;
  const JsonPart pattern = part.at("pattern");
  if (pattern.has("Regex")) {
    OSLER_RETURN_IF_ERROR(ExpectObject(pattern, {"Regex"}));
    OSLER_ASSIGN_OR_RETURN(step.regex, Regex::Compile(pattern.at("Regex")));
  } else {
    OSLER_ASSIGN_OR_RETURN(step.text, ExpectStringPattern(pattern));
  }
  OSLER_ASSIGN_OR_RETURN(step.invert, ExpectBool(part.at("invert")));
  OSLER_ASSIGN_OR_RETURN(const std::string behavior, ExpectString(part.at("behavior")));
  static constexpr std::pair<std::string_view, Behavior> kBehaviors[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  for (const auto& [name, value] : kBehaviors) {
    if (behavior != name) continue;
    step.behavior = value;
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }
  return part.at("behavior").Error(absl::StrCat("unknown behavior \"", behavior, "\""));
}

absl::Status PreTokenizer::AddByteLevel(const JsonPart& part) {
  OSLER_RETURN_IF_ERROR(
      ExpectObject(part, {"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  OSLER_ASSIGN_OR_RETURN(const bool prefix, ExpectBool(part.at("add_prefix_space")));
  if (prefix) return part.at("add_prefix_space").Error("true is not supported by this build");
  bool use_regex = true;
  if (part.has("use_regex")) {
    OSLER_ASSIGN_OR_RETURN(use_regex, ExpectBool(part.at("use_regex")));
  }
  if (use_regex) {
    const Json pattern = kByteLevelPattern;
    Step step;
    OSLER_ASSIGN_OR_RETURN(step.regex, Regex::Compile({&pattern, part.where}));
    steps_.push_back(std::move(step));
  }
  byte_level_ = true;
  return absl::OkStatus();
}

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const JsonPart& part) {
  PreTokenizer made;
  if (!part.is_null()) OSLER_RETURN_IF_ERROR(made.Add(part, 0));
  return made;
}

// The matches inside `word`, as ranges of `text`.
absl::Status PreTokenizer::FindAll(std::string_view text, TextRange word, const Step& step,
                                   std::vector<TextRange>& matches) {
  matches.clear();
  const std::string_view inside = text.substr(word.first, word.second - word.first);
  if (step.regex.has_value()) {
    OSLER_RETURN_IF_ERROR(step.regex->FindAll(inside, matches));
  } else {
    for (size_t hit = 0; (hit = inside.find(step.text, hit)) != std::string_view::npos;) {
      matches.emplace_back(hit, hit + step.text.size());
      hit += step.text.size();
    }
  }
  for (auto& [begin, end] : matches) begin += word.first, end += word.first;
  return absl::OkStatus();
}

void PreTokenizer::AppendWords(std::vector<Part>& parts, Behavior behavior,
                               std::vector<TextRange>& out) {
  const bool backwards = behavior == Behavior::kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  const size_t first = out.size();
  bool previous_match = false;
  for (const Part& part : parts) {
    bool join = false;
    switch (behavior) {
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

absl::Status PreTokenizer::Split(std::string_view text, std::vector<TextRange>& words) const {
  if (text.empty()) return absl::OkStatus();
  std::vector<TextRange> now = {{0, text.size()}}, next, matches;
  std::vector<Part> parts;
  for (const Step& step : steps_) {
    next.clear();
    for (const TextRange& word : now) {
      OSLER_RETURN_IF_ERROR(FindAll(text, word, step, matches));
      parts.clear();
      size_t from = word.first;
      for (const auto& [begin, end] : matches) {
        if (begin > from) parts.push_back({{from, begin}, step.invert});
        parts.push_back({{begin, end}, !step.invert});
        from = end;
      }
      if (from < word.second) parts.push_back({{from, word.second}, step.invert});
      AppendWords(parts, step.behavior, next);
    }
    now.swap(next);
  }
  words.insert(words.end(), now.begin(), now.end());
  return absl::OkStatus();
}

}  // namespace osler
