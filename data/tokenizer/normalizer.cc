#include "data/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <cstdlib>
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

// Whether canonical composition never reaches across the boundary before `code`: everything that
// composes with what stands before it is a mark or a conjoining Hangul vowel or final.
bool StartsNfcSegment(char32_t code) {
  if (code < 0x300) return true;
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

MappedText Nfc(MappedText in) {
  MappedText out;
  for (size_t begin = 0; begin < in.text.size();) {
    size_t end = begin;
    NextCodePoint(in.text, end);
    while (end < in.text.size()) {
      size_t next = end;
      if (StartsNfcSegment(NextCodePoint(in.text, next))) break;
      end = next;
    }
    const std::string_view segment = std::string_view(in.text).substr(begin, end - begin);
    if (segment.size() == 1) {
      out.AppendFrom(in, begin, end);
    } else if (const std::string composed = NfcOf(segment); composed == segment) {
      out.AppendFrom(in, begin, end);
    } else {
      out.Append(composed, in.OriginOf(begin));
    }
    begin = end;
  }
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
