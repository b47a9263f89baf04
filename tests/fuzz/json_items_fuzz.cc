// JSON files of many records from arbitrary bytes, beside a parse of the whole text: a valid list
// is read item by item, equal and complete; text that is no valid JSON brings at least one error.
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "base/check.h"
#include "base/errors.h"
#include "data/sources/json_items.h"
#include "data/sources/reject.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_file.h"

namespace osler {
namespace {

struct Reading {
  std::vector<nlohmann::json> rows;
  int64_t rejected = 0;
  bool followed = true;  // to the end of the file
};

Reading ReadAll(const std::string& bytes, const std::string& records) {
  Reading reading;
  JsonItems items(InMemory(bytes), records);
  while (true) {
    const int64_t before = items.position();
    auto row = items.Next();
    OSLER_CHECK(items.position() >= before);
    if (row.ok() && !row->has_value()) break;
    if (row.ok()) {
      reading.rows.push_back(**std::move(row));
      continue;
    }
    OSLER_CHECK(ExitCodeOf(row.status()) == ExitCode::kData);
    OSLER_CHECK(absl::StartsWith(row.status().message(), "fuzz:"));
    reading.followed = !RejectReason(row.status()).empty();
    if (!reading.followed) break;
    ++reading.rejected;
  }
  OSLER_CHECK(items.position() == static_cast<int64_t>(bytes.size()));
  OSLER_CHECK(items.Next().ok());  // and stays there
  return reading;
}

}  // namespace
}  // namespace osler

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto whole = nlohmann::json::parse(bytes, nullptr, false);
  const osler::Reading reading = osler::ReadAll(bytes, "");
  const osler::Reading inner = osler::ReadAll(bytes, "data");
  if (whole.is_discarded() || bytes.find('\0') != std::string::npos) {  // NUL ends a text there
    OSLER_CHECK(!reading.followed || reading.rejected > 0);
    return 0;
  }
  OSLER_CHECK(reading.followed == whole.is_structured());
  if (whole.is_array()) {
    OSLER_CHECK(reading.rows.size() + static_cast<size_t>(reading.rejected) == whole.size());
    if (reading.rejected == 0) OSLER_CHECK(nlohmann::json(reading.rows) == whole);
  } else if (whole.is_object()) {
    OSLER_CHECK(reading.rows.size() + static_cast<size_t>(reading.rejected) >= whole.size());
    const bool has_data = whole.contains("data") && whole["data"].is_structured();
    if (!has_data && reading.rejected == 0) OSLER_CHECK(!inner.followed);
    if (has_data && inner.rejected == 0 && reading.rejected == 0 && whole["data"].is_array())
      OSLER_CHECK(nlohmann::json(inner.rows) == whole["data"]);
  }
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  return {
      R"([{"t": "[{\"]"}, {"t": ["\\", 1.5e3, null, true, {}]}, 7, "x", []])",
      R"({"p1" : {"t":"a"}, "\u00e9" : {"t":[[]]} , "x": "y"})",
      "{\"v\": [1, \"]}\"], \"data\": [\n{\"t\": \"a\"},\n{\"t\": \"b\"}\n], \"more\": {\"x\": 0}}",
      " [ ] "};
}
