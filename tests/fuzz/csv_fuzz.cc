// CSV from arbitrary bytes: every row is an object or a data error with its place, reading ends at
// the file's end, and the rows, written again with every cell in quotes, read as the same rows.
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "base/errors.h"
#include "data/sources/csv_rows.h"
#include "data/sources/reject.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_file.h"

namespace osler {
namespace {

struct Reading {
  std::vector<nlohmann::json> rows;
  bool clean = true;  // no row was rejected and the file ended as it should
};

void CheckRefused(const absl::Status& status) {
  OSLER_CHECK(ExitCodeOf(status) == ExitCode::kData);
  OSLER_CHECK(absl::StartsWith(status.message(), "fuzz:"));
}

Reading ReadAll(const std::string& bytes, char delimiter) {
  Reading reading;
  const auto size = static_cast<int64_t>(bytes.size());
  auto rows = CsvRows::Open(InMemory(bytes), {delimiter, {}});
  if (!rows.ok()) {
    CheckRefused(rows.status());
    return {{}, false};
  }
  for (int64_t before = (*rows)->position();; before = (*rows)->position()) {
    auto row = (*rows)->Next();
    OSLER_CHECK((*rows)->position() >= before && (*rows)->position() <= size);
    if (!row.ok()) {
      CheckRefused(row.status());
      reading.clean = false;
      if (RejectReason(row.status()).empty()) break;
      OSLER_CHECK((*rows)->position() > before);
      continue;
    }
    if (!row->has_value()) break;
    reading.rows.push_back(**std::move(row));
  }
  OSLER_CHECK((*rows)->position() == size);
  return reading;
}

std::string Quoted(const std::string& cell) {
  return absl::StrCat("\"", absl::StrReplaceAll(cell, {{"\"", "\"\""}}), "\"");
}

// All rows under the names of the first one's cells, in the order of the names.
std::string Write(const std::vector<nlohmann::json>& rows) {
  std::string header, body;
  for (const auto& [name, cell] : rows.front().items()) header += Quoted(name) + ",";
  for (const nlohmann::json& row : rows) {
    for (const auto& [name, cell] : row.items()) body += Quoted(cell.get<std::string>()) + ",";
    body.back() = '\n';
  }
  header.back() = '\n';
  return header + body;
}

}  // namespace
}  // namespace osler

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const char delimiter : {',', '\t'}) {
    const osler::Reading reading = osler::ReadAll(bytes, delimiter);
    if (reading.rows.empty() || reading.rows.front().empty()) continue;
    const osler::Reading again = osler::ReadAll(osler::Write(reading.rows), ',');
    OSLER_CHECK(again.clean && again.rows == reading.rows);
  }
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  return {"id,question,answer\r\n1,\"a, \"\"b\"\"\r\nc\",yes\r\n2,,\"\"\r\n",
          "a\tb\n\"x\ty\"\t\xc3\xa9\n1\t2\n\n", ",x\n0,\"1\n\n2\"\n1,\"3\"\"\"\n\n"};
}
