// JSON Lines: one strict document a line (data/sources/record_json.h).
//
// CRLF line ends and empty lines at the end of the file are tolerated; an empty line elsewhere and
// a line of more than 256 MiB are rejected.
#pragma once

#include <utility>

#include "data/sources/row_reader.h"

namespace osler {

class JsonLines : public RowReader {
 public:
  explicit JsonLines(TextFile file) : RowReader(std::move(file)) {}
  absl::StatusOr<std::optional<nlohmann::json>> Next() override;
};

}  // namespace osler
