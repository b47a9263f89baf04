// CSV as in RFC 4180, with a header row: each row is an object of texts by column name.
//
// Quoted cells may hold delimiters, doubled quotes and line breaks; lines end in CRLF or LF; empty
// lines at the end of the file are tolerated. Rejected are rows with more or fewer cells than the
// header, quotes within unquoted cells, and text behind a closing quote (the next row begins with
// the next line then). A quote that is never closed ends the reading with an error.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/sources/row_reader.h"

namespace osler {

struct CsvOptions {
  char delimiter = ',';
  std::vector<std::string> columns;  // that must be there
};

class CsvRows : public RowReader {
 public:
  // Reads the header. Data error if a column is missing or two have one name.
  static absl::StatusOr<std::unique_ptr<CsvRows>> Open(TextFile file, const CsvOptions& options);
  absl::StatusOr<std::optional<nlohmann::json>> Next() override;

 private:
  CsvRows(TextFile file, char delimiter)
      : RowReader(std::move(file)), delimiter_(delimiter), ends_({delimiter, '"', '\r', '\n'}) {}
  absl::Status ReadHeader(const std::vector<std::string>& wanted);
  absl::StatusOr<std::vector<std::string>> ReadRow();
  absl::StatusOr<std::string> TakeCell();
  absl::StatusOr<std::string> TakeQuoted();
  bool TakeLineEnd();
  absl::Status BadRow(std::string_view why);

  const char delimiter_;
  const std::string ends_;  // what may end an unquoted cell
  int64_t line_ = 1;        // of at_
  std::vector<std::string> header_;
};

}  // namespace osler
