#include "data/tokenizer/decoder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "data/tokenizer/byte_level.h"
#include "data/tokenizer/mapped_text.h"
#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

constexpr int kMaxDepth = 16;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The byte of "<0xXX>", or -1. `tokenizers` reads the digits with Rust's from_str_radix, which
// takes a plus sign.
int ByteOf(const std::string& token) {
  if (token.size() != 6 || token.compare(0, 3, "<0x") != 0 || token[5] != '>') return -1;
  const int high = token[3] == '+' ? 0 : HexDigit(token[3]), low = HexDigit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::vector<std::string> JoinBytes(std::vector<std::string> tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (IsUtf8(bytes)) {
      if (!bytes.empty()) out.push_back(std::move(bytes));
    } else {
      out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = ByteOf(token); byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  return out;
}

// A token with a character outside the byte alphabet (an added one) stands for itself.
std::string JoinSpelledBytes(const std::vector<std::string>& tokens) {
  std::string out, bytes;
  for (const std::string& token : tokens) out += SpellBytes(token, bytes) ? bytes : token;
  return ToMappedText(out).text;
}

std::string Strip(const std::string& token, const std::string& content, int64_t start,
                  int64_t stop) {
  std::string_view left = token;
  const auto size = content.size();
  for (; start > 0 && left.substr(0, size) == content; --start) left.remove_prefix(size);
  for (; stop > 0 && left.size() >= size && left.substr(left.size() - size) == content; --stop) {
    left.remove_suffix(size);
  }
  return std::string(left);
}

std::string Concatenate(const std::vector<std::string>& tokens, std::string_view between) {
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out.append(between);
    out.append(tokens[i]);
  }
  return out;
}

}  // namespace

absl::Status Decoder::Add(const JsonPart& part, int depth) {
  if (depth > kMaxDepth) return part.Error("nested too deeply");
  OSLER_ASSIGN_OR_RETURN(const std::string type, TypeOf(part));
  if (type == "Sequence") {
    OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "decoders"}));
    const JsonPart list = part.at("decoders");
    OSLER_RETURN_IF_ERROR(ExpectArray(list));
    for (size_t i = 0; i < list.value->size(); ++i)
      OSLER_RETURN_IF_ERROR(Add(list.at(i), depth + 1));
    return absl::OkStatus();
  }
  if (type == "Replace") {
    OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "pattern", "content"}));
    OSLER_ASSIGN_OR_RETURN(std::string pattern, ExpectStringPattern(part.at("pattern")));
    OSLER_ASSIGN_OR_RETURN(std::string content, ExpectString(part.at("content")));
    steps_.push_back({Kind::kReplace, std::move(pattern), std::move(content)});
    return absl::OkStatus();
  }
  if (type == "Strip") {
    OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "content", "start", "stop"}));
    OSLER_ASSIGN_OR_RETURN(std::string content, ExpectString(part.at("content")));
    OSLER_ASSIGN_OR_RETURN(const int64_t start, ExpectInteger(part.at("start"), 0, INT64_MAX));
    OSLER_ASSIGN_OR_RETURN(const int64_t stop, ExpectInteger(part.at("stop"), 0, INT64_MAX));
    size_t at = 0;
    if (!content.empty()) NextCodePoint(content, at);
    if (content.empty() || at != content.size())
      return part.at("content").Error("must be one character");
    steps_.push_back({Kind::kStrip, "", std::move(content), start, stop});
    return absl::OkStatus();
  }
  if (type == "ByteFallback" || type == "Fuse") {
    OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type"}));
    steps_.push_back({type == "Fuse" ? Kind::kFuse : Kind::kByteFallback, "", ""});
    return absl::OkStatus();
  }
  if (type == "ByteLevel") {
    OSLER_RETURN_IF_ERROR(
        ExpectObject(part, {"type", "add_prefix_space", "trim_offsets", "use_regex"}));
    steps_.push_back({Kind::kByteLevel, "", ""});
    return absl::OkStatus();
  }
  return part.Error(absl::StrCat("unknown decoder \"", type,
                                 "\": this build knows Replace, ByteFallback, ByteLevel, Fuse, "
                                 "Strip and Sequence"));
}

absl::StatusOr<Decoder> Decoder::Parse(const JsonPart& part) {
  Decoder decoder;
  decoder.none_ = part.is_null();
  if (!decoder.none_) OSLER_RETURN_IF_ERROR(decoder.Add(part, 0));
  return decoder;
}

std::string Decoder::Decode(std::vector<std::string> tokens) const {
  if (none_) return Concatenate(tokens, " ");
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kReplace:
        for (std::string& token : tokens)
          token = absl::StrReplaceAll(token, {{step.pattern, step.content}});
        break;
      case Kind::kByteFallback: tokens = JoinBytes(std::move(tokens)); break;
      case Kind::kByteLevel: tokens = {JoinSpelledBytes(tokens)}; break;
      case Kind::kFuse: tokens = {Concatenate(tokens, "")}; break;
      case Kind::kStrip:
        for (std::string& token : tokens) token = Strip(token, step.content, step.start, step.stop);
        break;
    }
  }
  return Concatenate(tokens, "");
}

}  // namespace osler
