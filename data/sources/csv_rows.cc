#include "data/sources/csv_rows.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "configs/suggest.h"
#include "data/sources/reject.h"

namespace osler {

absl::StatusOr<std::unique_ptr<CsvRows>> CsvRows::Open(TextFile file, const CsvOptions& options) {
  std::unique_ptr<CsvRows> rows(new CsvRows(std::move(file), options.delimiter));
  OSLER_RETURN_IF_ERROR(rows->ReadHeader(options.columns));
  return rows;
}

absl::Status CsvRows::ReadHeader(const std::vector<std::string>& wanted) {
  const auto error = [&](const std::string& why) {
    return DataError(absl::StrCat(origin_.file, ":1: ", why));
  };
  if (AtEnd()) return error("the file is empty: a CSV file begins with a header row");
  auto header = ReadRow();
  if (!header.ok()) {  // not a record that could be skipped
    return MakeError(ExitCode::kData, absl::StrCat(header.status().message(), " (header row)"));
  }
  header_ = *std::move(header);
  std::map<std::string, size_t> seen;
  for (size_t i = 0; i < header_.size(); ++i) {
    const auto [first, is_new] = seen.emplace(header_[i], i);
    if (is_new || header_[i].empty()) continue;
    return error(absl::StrCat("columns ", first->second + 1, " and ", i + 1,
                              " have the same name: rename one"));
  }
  for (const std::string& column : wanted) {
    if (seen.contains(column)) continue;
    const std::string near = NearestName(column, header_);
    return error(absl::StrCat(
        "there is no column \"", column, "\"",
        near.empty() ? absl::StrCat(" among the ", header_.size(), "; is the delimiter right?")
                     : absl::StrCat("; did you mean \"", near, "\"?")));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<nlohmann::json>> CsvRows::Next() {
  if (IsBlank(text_.substr(at_))) return at_ = text_.size(), std::nullopt;
  OSLER_ASSIGN_OR_RETURN(std::vector<std::string> cells, ReadRow());
  if (cells.size() != header_.size()) {
    return Reject(origin_, kWrongShape,
                  absl::StrCat("the row has ", cells.size(), " cells, the header ", header_.size(),
                               "; put cells that hold the delimiter or line breaks in quotes"));
  }
  nlohmann::json row = nlohmann::json::object();
  for (size_t i = 0; i < cells.size(); ++i) {
    if (!header_[i].empty()) row[header_[i]] = std::move(cells[i]);
  }
  return row;
}

absl::StatusOr<std::vector<std::string>> CsvRows::ReadRow() {
  const size_t begin = at_;
  origin_.line = line_;
  std::vector<std::string> cells;
  while (true) {
    OSLER_ASSIGN_OR_RETURN(std::string cell, TakeCell());
    cells.push_back(std::move(cell));
    if (TakeLineEnd()) break;
    if (text_[at_] != delimiter_) {
      return BadRow(text_[at_] == '\r' ? "a carriage return that no line feed follows"
                    : text_[at_] == '"'
                        ? "a quote inside an unquoted cell; quote the whole cell and double it"
                        : "text behind a closing quote; double the quotes inside a quoted cell");
    }
    ++at_;
  }
  const std::string_view row = text_.substr(begin, at_ - begin);
  if (row.size() > kMaxRecordBytes)
    return Reject(origin_, kMalformed, "the row is longer than 256 MiB");
  if (const std::string why = WhyNotText(row); !why.empty())
    return Reject(origin_, kMalformed, why + " of the row");
  return cells;
}

absl::StatusOr<std::string> CsvRows::TakeCell() {
  if (!AtEnd() && text_[at_] == '"') return TakeQuoted();
  const size_t end = std::min(text_.find_first_of(ends_, at_), text_.size());
  std::string cell(text_.substr(at_, end - at_));
  at_ = end;
  return cell;
}

absl::StatusOr<std::string> CsvRows::TakeQuoted() {
  const int64_t line = line_;
  std::string cell;
  for (++at_;; at_ += 2) {
    const size_t quote = text_.find('"', at_);
    if (quote == std::string_view::npos) {
      at_ = text_.size();
      return DataError(
          absl::StrCat(origin_.file, ":", line, ": a quote opens here and is never closed"));
    }
    const std::string_view piece = text_.substr(at_, quote - at_);
    line_ += std::count(piece.begin(), piece.end(), '\n');
    cell += piece;
    at_ = quote;
    if (text_.substr(at_ + 1, 1) != "\"") break;
    cell += '"';
  }
  ++at_;
  return cell;
}

// True at the end of a row, behind its line break.
bool CsvRows::TakeLineEnd() {
  if (AtEnd()) return true;
  const size_t length = text_[at_] == '\n' ? 1 : text_.substr(at_, 2) == "\r\n" ? 2 : 0;
  at_ += length;
  line_ += length > 0 ? 1 : 0;
  return length > 0;
}

// Rejects the row and goes to the next line.
absl::Status CsvRows::BadRow(std::string_view why) {
  at_ = std::min(text_.find('\n', at_), text_.size() - 1) + 1;
  const absl::Status status = Reject(origin_, kMalformed, why);
  ++line_;
  return status;
}

}  // namespace osler
