#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "configs/text_template.h"
#include "configs/validate.h"

namespace osler {
namespace {

using config::Source;

bool IsMapped(const Source& source) {
  return source.format() != config::CHAT_JSONL && source.format() != config::TOKENS_JSONL;
}

// The keys of the field map that are set.
std::vector<std::string> MapKeys(const Source& source) {
  std::vector<std::string> keys;
  const auto& type = *source.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const auto* field = type.field(i);
    const bool is_text = field->number() >= Source::kIdFieldNumber && !field->message_type();
    if (is_text && source.GetReflection()->HasField(source, field)) keys.push_back(field->name());
  }
  if (source.known().name_size() + source.known().id_size() > 0) keys.emplace_back("known");
  if (source.choice().options_size() > 0 || source.choice().has_answer())
    keys.emplace_back("choice");
  return keys;
}

// What is wrong with a $-name in a template, or "".
std::string WhyNoField(const std::string& name, const Source& source) {
  if (name.front() != '$' || name == "$key" || name == "$file") return "";
  if (name == "$options") {
    return source.choice().options_size() > 0 ? "" : "needs choice: {options: […], answer: …}";
  }
  if (name == "$letter" || name == "$answer")
    return source.choice().has_answer() ? "" : "needs choice: {options: […], answer: …}";
  return "is unknown; there are $key, $file, and with choice $options, $letter, $answer";
}

void CheckTemplate(const std::string& text, const std::string& key, const Source& source,
                   Rules& rules) {
  const auto parts = ParseTextTemplate(text);
  rules.Require(parts.ok(), key, std::string(parts.status().message()));
  rules.Require(!text.empty(), key, "is empty; delete the key, or write text with {FIELD} in it");
  if (!parts.ok()) return;
  bool has_field = false;
  for (const TemplatePart& part : *parts) {
    if (part.kind == TemplatePart::Kind::kText) continue;
    has_field = true;
    const std::string why = WhyNoField(part.text, source);
    rules.Require(why.empty(), key, fmt::format("{{{}}} {}", part.text, why));
  }
  const bool names_records = key.ends_with(".id") || key.ends_with(".subject");
  rules.Require(has_field || !names_records, key,
                "names no field, so that every record would get the same; write {FIELD}");
}

void CheckTemplates(const Source& source, const std::string& key, Rules& rules) {
  if (source.has_id()) CheckTemplate(source.id(), key + ".id", source, rules);
  if (source.has_subject()) CheckTemplate(source.subject(), key + ".subject", source, rules);
  if (source.has_system()) CheckTemplate(source.system(), key + ".system", source, rules);
  if (source.has_prompt()) CheckTemplate(source.prompt(), key + ".prompt", source, rules);
  if (source.has_completion())
    CheckTemplate(source.completion(), key + ".completion", source, rules);
  if (source.has_text()) CheckTemplate(source.text(), key + ".text", source, rules);
}

void CheckContainer(const Source& source, const std::string& key, Rules& rules) {
  rules.Require(!source.has_records() || source.format() == config::QA_JSON, key + ".records",
                "is for qa_json: it names the field that holds the records");
  rules.Require(!source.has_separator() || source.format() == config::TEXT, key + ".separator",
                "is for text; for csv there is delimiter");
  rules.Require(!source.has_delimiter() || source.format() == config::CSV, key + ".delimiter",
                "is for csv; for text there is separator");
  const std::string& delimiter = source.delimiter();
  rules.Require(!source.has_delimiter() || (delimiter.size() == 1 && delimiter != "\"" &&
                                            delimiter != "\n" && delimiter != "\r"),
                key + ".delimiter", "must be one character, such as \",\", \";\" or \"\\t\"");
  rules.Require(!source.has_separator() || !source.separator().empty(), key + ".separator",
                "is empty; delete the key to keep each file whole");
}

// A mapped source says in exactly one way what is learnt.
void CheckFieldMap(const Source& source, const std::string& key, Rules& rules) {
  const int ways = (source.has_prompt() || source.has_completion() ? 1 : 0) +
                   (source.has_messages() ? 1 : 0) + (source.has_text() ? 1 : 0);
  rules.Require(ways <= 1, key,
                "has more than one of prompt with completion, messages and text; keep one");
  rules.Require(ways == 1 || source.format() == config::TEXT, key,
                "does not say what is learnt; add prompt: \"{FIELD}\" with completion: "
                "\"{FIELD}\", or messages: FIELD, or text: \"{FIELD}\"");
  rules.Require(source.has_completion() || !source.has_prompt(), key + ".completion",
                "is missing; give the template of what is learnt");
  rules.Require(source.has_prompt() || !source.has_completion(), key + ".prompt",
                "is missing; give the template of what is asked (for text alone use text)");
  rules.Require(!source.has_system() || source.has_prompt() || source.has_messages(),
                key + ".system", "needs prompt or messages: a text record has no system turn");
  rules.Require(!source.choice().has_answer() || source.choice().options_size() > 0,
                key + ".choice.options", "is missing; list the fields of the options");
  CheckTemplates(source, key, rules);
}

}  // namespace

void CheckSource(const Source& source, const std::string& key, Rules& rules) {
  rules.Require(!source.name().empty(), key + ".name",
                "is missing; name the source, the report counts its records under it");
  rules.Require(source.has_format(), key + ".format",
                "is missing; use chat_jsonl, tokens_jsonl, qa_jsonl, qa_json, csv or text");
  rules.Require(!source.path().empty(), key + ".path", "is missing; give the source's file");
  rules.Require(
      source.format() != config::TOKENS_JSONL || source.trusted(), key + ".trusted",
      "must be true for tokens_jsonl: the gate cannot look for identifiers in token ids; add "
      "trusted: true if the text was de-identified before it was tokenized");
  CheckContainer(source, key, rules);
  if (IsMapped(source)) return CheckFieldMap(source, key, rules);
  for (const std::string& name : MapKeys(source)) {
    rules.Require(
        false, key + "." + name,
        "is for formats whose fields are mapped; the lines of chat_jsonl and tokens_jsonl "
        "name their parts themselves (use qa_jsonl to map them)");
  }
}

}  // namespace osler
