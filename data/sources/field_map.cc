#include "data/sources/field_map.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/sources/choice.h"
#include "data/sources/fields.h"
#include "data/sources/reject.h"
#include "data/sources/text_file.h"

namespace osler {
namespace {

using Json = nlohmann::json;

absl::StatusOr<std::string> FillPart(const TemplatePart& part, const Json& row) {
  if (part.kind == TemplatePart::Kind::kText) return part.text;
  const bool optional = part.kind == TemplatePart::Kind::kOptionalField;
  const Json* value = FindPath(row, part.text);
  if (value == nullptr || value->is_null()) {
    if (optional) return std::string();
    return DataError(absl::StrCat(value == nullptr
                                      ? MissingField(row, part.text)
                                      : absl::StrCat("field \"", part.text, "\" is null"),
                                  " ({", part.text, "?} leaves it out where there is none)"));
  }
  auto text = TextOf(*value);
  if (text.ok()) return text;
  return DataError(absl::StrCat("field \"", part.text, "\" ", text.status().message()));
}

}  // namespace

absl::StatusOr<FieldMap> FieldMap::Create(const config::Source& options) {
  FieldMap map(options);
  const bool is_whole_text = options.format() == config::TEXT && !options.has_text() &&
                             !options.has_prompt() && !options.has_messages();
  const std::string text = is_whole_text ? "{text}" : options.text();
  OSLER_RETURN_IF_ERROR(map.AddRole("id", options.id(), map.id_));
  OSLER_RETURN_IF_ERROR(map.AddRole("subject", options.subject(), map.subject_));
  OSLER_RETURN_IF_ERROR(map.AddRole("system", options.system(), map.system_));
  OSLER_RETURN_IF_ERROR(map.AddRole("prompt", options.prompt(), map.prompt_));
  OSLER_RETURN_IF_ERROR(map.AddRole("completion", options.completion(), map.completion_));
  OSLER_RETURN_IF_ERROR(map.AddRole("text", text, map.text_));
  return map;
}

absl::Status FieldMap::AddRole(const std::string& key, const std::string& text,
                               std::optional<Role>& role) {
  if (text.empty()) return absl::OkStatus();
  auto parts = ParseTextTemplate(text);
  if (!parts.ok()) return Annotate(parts.status(), key);
  role = Role{key, *std::move(parts)};
  return absl::OkStatus();
}

std::vector<std::string> FieldMap::Fields() const {
  std::set<std::string> names;
  const auto add = [&](const std::string& name) {
    if (!name.empty() && name.front() != '$') names.insert(name);
  };
  for (const auto* role : {&id_, &subject_, &system_, &prompt_, &completion_, &text_}) {
    if (!role->has_value()) continue;
    for (const TemplatePart& part : (*role)->parts) {
      if (part.kind != TemplatePart::Kind::kText) add(part.text);
    }
  }
  std::for_each(options_.known().name().begin(), options_.known().name().end(), add);
  std::for_each(options_.known().id().begin(), options_.known().id().end(), add);
  std::for_each(options_.choice().options().begin(), options_.choice().options().end(), add);
  add(options_.choice().answer());
  add(options_.messages());
  return {names.begin(), names.end()};
}

absl::StatusOr<RawRecord> FieldMap::Map(Json row, const Origin& origin) const {
  RawRecord record;
  record.origin = origin;
  if (!row.is_object()) return Reject(origin, kWrongShape, "the record must be a JSON object");
  if (options_.choice().options_size() > 0)
    OSLER_RETURN_IF_ERROR(AddChoice(options_.choice(), origin, row));
  OSLER_RETURN_IF_ERROR(MapIds(row, record));
  OSLER_RETURN_IF_ERROR(MapBody(row, record));
  OSLER_RETURN_IF_ERROR(MapKnown(row, record));
  return record;
}

absl::StatusOr<std::string> FieldMap::Fill(const Role& role, const Json& row,
                                           const Origin& origin) const {
  std::string text;
  for (const TemplatePart& part : role.parts) {
    const auto filled = FillPart(part, row);
    if (!filled.ok())
      return Reject(origin, kWrongShape, absl::StrCat(role.key, ": ", filled.status().message()));
    text += *filled;
  }
  if (IsBlank(text)) return Reject(origin, kWrongShape, role.key + ": comes out empty");
  return text;
}

// A mere number would be the same in every source, and is no identifier to look for in the text.
absl::Status FieldMap::MapIds(const Json& row, RawRecord& record) const {
  if (id_.has_value()) {
    OSLER_ASSIGN_OR_RETURN(record.id, Fill(*id_, row, record.origin));
  } else {
    const Json& key = row.at("$key");
    record.id =
        key.is_string() ? key.get<std::string>() : absl::StrCat(options_.name(), "-", key.dump());
  }
  if (!subject_.has_value()) {
    record.subject = record.id;
    return absl::OkStatus();
  }
  OSLER_ASSIGN_OR_RETURN(record.subject, Fill(*subject_, row, record.origin));
  return absl::OkStatus();
}

absl::Status FieldMap::MapBody(const Json& row, RawRecord& record) const {
  if (text_.has_value()) {
    OSLER_ASSIGN_OR_RETURN(record.body.text, Fill(*text_, row, record.origin));
    return absl::OkStatus();
  }
  std::vector<Message>& messages = record.body.messages;
  if (system_.has_value()) {
    OSLER_ASSIGN_OR_RETURN(std::string content, Fill(*system_, row, record.origin));
    messages.push_back({"system", std::move(content)});
  }
  if (options_.has_messages()) {
    const Json* list = FindPath(row, options_.messages());
    if (list != nullptr) return ReadMessages(*list, options_.messages(), record);
    return Reject(record.origin, kWrongShape,
                  absl::StrCat("messages: ", MissingField(row, options_.messages())));
  }
  OSLER_ASSIGN_OR_RETURN(std::string prompt, Fill(*prompt_, row, record.origin));
  messages.push_back({"user", std::move(prompt)});
  OSLER_ASSIGN_OR_RETURN(std::string completion, Fill(*completion_, row, record.origin));
  messages.push_back({"assistant", std::move(completion)});
  return absl::OkStatus();
}

absl::Status FieldMap::MapKnown(const Json& row, RawRecord& record) const {
  const auto read = [&](const std::string& kind, const std::string& path) {
    const Json* values = FindPath(row, path);
    if (values != nullptr) return ReadKnownValues(kind, *values, record);
    return Reject(record.origin, kWrongShape,
                  absl::StrCat("known.", kind, ": ", MissingField(row, path)));
  };
  for (const std::string& path : options_.known().name()) OSLER_RETURN_IF_ERROR(read("name", path));
  for (const std::string& path : options_.known().id()) OSLER_RETURN_IF_ERROR(read("id", path));
  return absl::OkStatus();
}

}  // namespace osler
