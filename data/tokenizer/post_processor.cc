#include "data/tokenizer/post_processor.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr int kMaxDepth = 16;

absl::Status AppendSpecial(const JsonPart& piece, const JsonPart& specials,
                           std::vector<int32_t>& out) {
  OSLER_RETURN_IF_ERROR(ExpectObject(piece, {"id", "type_id"}));
  OSLER_ASSIGN_OR_RETURN(const std::string name, ExpectString(piece.at("id")));
  if (!specials.has(name.c_str())) {
    return piece.Error(absl::StrCat("\"", name, "\" is not among special_tokens"));
  }
  const JsonPart ids = specials.at(name.c_str()).at("ids");
  OSLER_RETURN_IF_ERROR(ExpectArray(ids));
  for (size_t i = 0; i < ids.value->size(); ++i) {
    OSLER_ASSIGN_OR_RETURN(const int64_t id, ExpectInteger(ids.at(i), 0, INT32_MAX));
    out.push_back(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

absl::Status AddTemplate(const JsonPart& part, PostProcessor& out) {
  OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "single", "pair", "special_tokens"}));
  const JsonPart single = part.at("single"), specials = part.at("special_tokens");
  OSLER_RETURN_IF_ERROR(ExpectArray(single));
  std::vector<int32_t> front, back;
  bool seen = false;
  for (size_t i = 0; i < single.value->size(); ++i) {
    const JsonPart piece = single.at(i);
    OSLER_RETURN_IF_ERROR(ExpectObject(piece, {"SpecialToken", "Sequence"}));
    if (piece.has("SpecialToken")) {
      OSLER_RETURN_IF_ERROR(AppendSpecial(piece.at("SpecialToken"), specials, seen ? back : front));
      continue;
    }
    const JsonPart id = piece.at("Sequence").at("id");
    if (seen || id.is_null() || *id.value != "A")
      return piece.Error("must name the text once, as \"A\"");
    seen = true;
  }
  if (!seen) return single.Error("does not contain the text (Sequence \"A\")");
  out.front.insert(out.front.begin(), front.begin(), front.end());
  out.back.insert(out.back.end(), back.begin(), back.end());
  return absl::OkStatus();
}

absl::Status Add(const JsonPart& part, int depth, PostProcessor& out) {
  if (depth > kMaxDepth) return part.Error("nested too deeply");
  OSLER_ASSIGN_OR_RETURN(const std::string type, TypeOf(part));
  if (type == "TemplateProcessing") return AddTemplate(part, out);
  if (type == "ByteLevel") {  // speaks of offsets only
    return ExpectObject(part, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  }
  if (type != "Sequence") {
    return part.Error(
        absl::StrCat("unknown post-processor \"", type,
                     "\": this build knows TemplateProcessing, ByteLevel and Sequence"));
  }
  OSLER_RETURN_IF_ERROR(ExpectObject(part, {"type", "processors"}));
  const JsonPart list = part.at("processors");
  OSLER_RETURN_IF_ERROR(ExpectArray(list));
  for (size_t i = 0; i < list.value->size(); ++i)
    OSLER_RETURN_IF_ERROR(Add(list.at(i), depth + 1, out));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PostProcessor> ParsePostProcessor(const JsonPart& part) {
  PostProcessor made;
  if (!part.is_null()) OSLER_RETURN_IF_ERROR(Add(part, 0, made));
  return made;
}

}  // namespace osler
