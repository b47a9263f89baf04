#include "data/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

constexpr int kMaxDepth = 16;

MappedText Replace(MappedText in, const std::string& pattern, const std::string& content) {
  size_t hit = in.text.find(pattern);
  if (hit == std::string::npos) return in;
  MappedText out;
  out.text.reserve(in.text.size() + in.text.size() / 4);
  out.origin.reserve(in.text.size() + in.text.size() / 4);
  size_t from = 0;
  while (hit != std::string::npos) {
    out.AppendFrom(in, from, hit);
    out.Append(content, in.OriginOf(hit));
    from = hit + pattern.size();
    hit = in.text.find(pattern, from);
  }
  out.AppendFrom(in, from, in.text.size());
  return out;
}

MappedText Prepend(MappedText in, const std::string& content) {
  if (in.text.empty()) return in;
  MappedText out;
  out.Append(content, in.OriginOf(0));
  out.AppendFrom(in, 0, in.text.size());
  return out;
}

// Marks that the Unicode tables of `tokenizers`' NFC do not have (they are younger than its version
// 9, or of a class given later): they stay where they are, as letters do, and join nothing.
constexpr std::pair<char32_t, char32_t> kUnknownMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}};

bool IsUnknownMark(char32_t code) {
  const auto* after =
      std::upper_bound(std::begin(kUnknownMarks), std::end(kUnknownMarks), code,
                       [](char32_t value, const auto& range) { return value < range.first; });
  return after != std::begin(kUnknownMarks) && code <= std::prev(after)->second;
}

// Whether canonical composition never reaches across the boundary before `code`: everything that
// composes with what stands before it is a mark or a conjoining Hangul vowel or final.
bool StartsNfcSegment(char32_t code) {
  if (code < 0x300 || IsUnknownMark(code)) return true;
  if (code >= 0x1160 && code <= 0x11FF) return false;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return false;
    default: return true;
  }
}

std::string NfcOf(std::string_view text) {
  utf8proc_uint8_t* made = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &made,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  // Valid UTF-8 fails only when memory is short; then the text stays as it is.
  if (size < 0) return std::string(text);
  std::string out(reinterpret_cast<const char*>(made), static_cast<size_t>(size));
  std::free(made);
  return out;
}

// The end of the segment that begins at `begin`, and whether NFC may change it.
size_t NfcSegmentEnd(const std::string& text, size_t begin, bool& may_change) {
  size_t end = begin;
  const char32_t first = NextCodePoint(text, end);
  may_change =
      first >= 0x300 &&
      utf8proc_get_property(static_cast<utf8proc_int32_t>(first))->decomp_seqindex != UINT16_MAX;
  if (IsUnknownMark(first)) return end;  // and what follows does not pass it
  while (end < text.size()) {
    size_t next = end;
    if (StartsNfcSegment(NextCodePoint(text, next))) break;
    may_change = true;
    end = next;
  }
  return end;
}

MappedText Nfc(MappedText in) {
  MappedText out;
  size_t copied = 0;
  bool may_change = false;
  for (size_t begin = 0, end = 0; begin < in.text.size(); begin = end) {
    end = NfcSegmentEnd(in.text, begin, may_change);
    if (!may_change) continue;
    const std::string_view segment = std::string_view(in.text).substr(begin, end - begin);
    const std::string composed = NfcOf(segment);
    if (composed == segment) continue;
    out.AppendFrom(in, copied, begin);
    out.Append(composed, in.OriginOf(begin));
    copied = end;
  }
  if (copied == 0) return in;
  out.AppendFrom(in, copied, in.text.size());
  return out;
}

}  // namespace

absl::Status Normalizer::Add(const JsonPart& part, int depth) {
  if (depth > kMaxDepth) return part.Error("nested too deeply");
  OSLER_ASSIGN_OR_RETURN(const std::string type, TypeOf(part));
  if (type == "Sequence") {
    OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "normalizers"}));
    const JsonPart list = part.at("normalizers");
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
  if (type == "Prepend") {
    OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "prepend"}));
    OSLER_ASSIGN_OR_RETURN(std::string content, ExpectString(part.at("prepend")));
    steps_.push_back({Kind::kPrepend, "", std::move(content)});
    return absl::OkStatus();
  }
  if (type == "NFC") {
    OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type"}));
    steps_.push_back({Kind::kNfc, "", ""});
    return absl::OkStatus();
  }
  return part.Error(absl::StrCat("unknown normalizer \"", type,
                                 "\": this build knows Replace, Prepend, NFC and Sequence"));
}

absl::StatusOr<Normalizer> Normalizer::Parse(const JsonPart& part) {
  Normalizer normalizer;
  if (!part.is_null()) OSLER_RETURN_IF_ERROR(normalizer.Add(part, 0));
  return normalizer;
}

MappedText Normalizer::Apply(MappedText text) const {
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kReplace: text = Replace(std::move(text), step.pattern, step.content); break;
      case Kind::kPrepend: text = Prepend(std::move(text), step.content); break;
      case Kind::kNfc: text = Nfc(std::move(text)); break;
    }
  }
  return text;
}

}  // namespace osler
