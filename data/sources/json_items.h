// JSON files that hold many records: an array of objects, or an object of objects by id.
//
// `records` names the member of the file's object that holds them ("data", "splits.train"); empty:
// the whole file. Each record is parsed strictly on its own (data/sources/record_json.h), so memory
// is bounded by the largest one; around them only what JSON's grammar has is accepted, and a key
// that stands in the file twice is rejected. A record that stands under a key has it as "$key".
// Structure that cannot be followed (a file that is cut short) ends the reading with an error.
#pragma once

#include <string>
#include <unordered_set>
#include <utility>

#include "data/sources/row_reader.h"

namespace osler {

class JsonItems : public RowReader {
 public:
  JsonItems(TextFile file, std::string records)
      : RowReader(std::move(file)), records_(std::move(records)) {}
  absl::StatusOr<std::optional<nlohmann::json>> Next() override;

 private:
  enum class State { kStart, kItems, kEnd };
  absl::Status Enter();
  absl::Status Leave();
  absl::StatusOr<std::optional<nlohmann::json>> NextItem();
  absl::Status OpenMember(const std::string& name);
  absl::StatusOr<bool> NextMember(std::string& key);
  absl::StatusOr<std::string_view> TakeValue();
  absl::StatusOr<std::string> TakeKey();
  absl::Status TakeColon();
  void SkipBlank();
  char Peek() const { return AtEnd() ? '\0' : text_[at_]; }
  absl::Status Broken(std::string_view why);

  const std::string records_;
  State state_ = State::kStart;
  int64_t line_ = 1;    // of at_
  int64_t depth_ = 0;   // objects open around the records
  char closing_ = ']';  // ends the records
  bool is_first_ = true;
  std::unordered_set<std::string> keys_;
};

}  // namespace osler
