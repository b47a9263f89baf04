// Plain text: a file is one row {"text": …}, or each stretch between two separators is. Stretches
// of white space only are no rows; nothing is trimmed.
#pragma once

#include <string>
#include <utility>

#include "data/sources/row_reader.h"

namespace osler {

class TextRows : public RowReader {
 public:
  // An empty `separator` keeps the file whole.
  TextRows(TextFile file, std::string separator)
      : RowReader(std::move(file)), separator_(std::move(separator)) {}
  absl::StatusOr<std::optional<nlohmann::json>> Next() override;

 private:
  const std::string separator_;
  int64_t line_ = 1;  // of at_
};

}  // namespace osler
