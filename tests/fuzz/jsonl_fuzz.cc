// JSON records from arbitrary bytes, by each format and through field maps: every one is a record
// or a data error with its place, and a record that comes through is one that the gate takes.
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "base/check.h"
#include "base/errors.h"
#include "configs/config.h"
#include "data/deid/gate.h"
#include "data/sources/chat_jsonl.h"
#include "data/sources/field_map.h"
#include "data/sources/record_json.h"
#include "data/sources/reject.h"
#include "data/sources/tokens_jsonl.h"
#include "tests/fuzz/fuzz.h"

namespace osler {
namespace {

void CheckRejected(const absl::Status& status) {
  OSLER_CHECK(ExitCodeOf(status) == ExitCode::kData);
  OSLER_CHECK(absl::StartsWith(status.message(), "fuzz.jsonl:3"));
}

void CheckRecord(absl::StatusOr<RawRecord> record, DeidGate& gate, bool trusted) {
  if (!record.ok()) return CheckRejected(record.status());
  record->trusted = trusted;
  const RecordBody body = record->body;
  const auto clean = gate.Pass(*std::move(record));
  if (!clean.ok()) return CheckRejected(clean.status());
  if (trusted) OSLER_CHECK(clean->body() == body);
  OSLER_CHECK(clean->body().messages.size() == body.messages.size());
  for (size_t i = 0; i < body.messages.size(); ++i) {
    // Clean text is UTF-8 (it can be written as JSON) and passes again as it is.
    const nlohmann::json text = clean->body().messages[i].content;
    OSLER_CHECK(!text.dump().empty());
  }
  OSLER_CHECK(clean->body().text.empty() == body.text.empty());
  OSLER_CHECK(!nlohmann::json(clean->body().text).dump().empty());
}

// Maps that between them use every key.
std::vector<FieldMap> FieldMaps() {
  constexpr char kSources[] = R"(sources:
  - {name: a, format: qa_jsonl, path: p, id: "{id}", subject: "{meta.site?}-{$file}", system: "{s?}.",
     prompt: "{q}\n{$options}", completion: "{$letter} {$answer}", known: {name: [meta.name], id: [id]},
     choice: {options: [o], answer: n, first: 1}}
  - {name: b, format: qa_jsonl, path: p, messages: messages, choice: {options: [q, id], answer: n}}
  - {name: c, format: qa_jsonl, path: p, text: "{q}{meta.name.0?}"}
output: {path: o}
)";
  std::vector<FieldMap> maps;
  const auto build = ParseBuildConfig(kSources, "fuzz.yaml", {});
  OSLER_CHECK(build.ok());
  for (const config::Source& source : build->sources())
    maps.push_back(FieldMap::Create(source).value());
  return maps;
}

}  // namespace
}  // namespace osler

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static osler::DeidGate* gate = osler::DeidGate::Create(osler::config::Deid()).value().release();
  const osler::Origin origin = {"fuzz.jsonl", 3};
  const auto document = osler::ParseRecordJson({reinterpret_cast<const char*>(data), size});
  if (!document.ok()) {
    OSLER_CHECK(osler::ExitCodeOf(document.status()) == osler::ExitCode::kData);
    return 0;
  }
  osler::CheckRecord(osler::ParseChatRecord(*document, origin), *gate, false);
  osler::CheckRecord(osler::ParseTokenRecord(*document, origin), *gate, true);
  static const auto* maps = new std::vector<osler::FieldMap>(osler::FieldMaps());
  nlohmann::json row = *document;
  if (row.is_object()) {
    row.emplace("$key", 7);
    row.emplace("$file", "fuzz.jsonl");
  }
  for (const osler::FieldMap& map : *maps) osler::CheckRecord(map.Map(row, origin), *gate, false);
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  return {
      R"({"id":"v1","subject":"p-00042","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"José O’Brien, 92-year-old, seen 3/14/2019, MRN 445566, (617) 555-0100 x12"},{"role":"assistant","content":"a@b.org, 12 Elm Street, Boston, MA 02139; 123-45-6789"}],"known":{"name":["O'Brien, José"],"id":["44-55-66"]}})",
      R"({"id":1,"subject":2,"messages":[{"role":"user","content":"\u0041\ud83d\ude00 ３/１４/２０１９"},{"role":"assistant","content":"\u0000\n"}],"known":{"name":"Li","other":null}})",
      R"({"id":"a","subject":"b","input_ids":[0,1,2147483647],"labels":[-100,1,2]})",
      R"({"id":"q-1","q":"Why?","o":{"A":"x","B":2},"n":"b","meta":{"site":"S","name":["Ann Lee",3]}})",
      R"({"id":5,"q":["a",1.5,true],"o":["x","y"],"n":2,"s":null,"messages":[{"role":"user","content":"a"}]})",
      R"({"id":"a","subject":"b","input_ids":[1],"x":[[{"y":1.5e300}],null,true]})",
  };
}
