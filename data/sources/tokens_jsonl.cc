#include "data/sources/tokens_jsonl.h"

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/encoder.h"
#include "data/sources/fields.h"
#include "data/sources/reject.h"

namespace osler {
namespace {

using Json = nlohmann::json;

// A list of ids from 0 to 2^31 - 1; in labels also -100.
absl::Status ReadIds(const Json& document, const char* name, bool is_labels, RawRecord& record,
                     std::vector<int32_t>& ids) {
  const auto reject = [&](const std::string& why) {
    return Reject(record.origin, kWrongShape, absl::StrCat("\"", name, "\" ", why));
  };
  const Json* field = FindField(document, name);
  if (field == nullptr) return reject("is missing");
  if (!field->is_array()) return reject("must be a list of token ids");
  ids.reserve(field->size());
  for (size_t i = 0; i < field->size(); ++i) {
    const Json& item = (*field)[i];
    const bool is_integer = item.is_number_integer();
    const bool fits =
        is_integer && (!item.is_number_unsigned() || item.get<uint64_t>() <= INT32_MAX);
    const int64_t value = fits ? item.get<int64_t>() : -1;
    const bool ignored = is_labels && value == kIgnore;
    if (!fits || (!ignored && (value < 0 || value > std::numeric_limits<int32_t>::max()))) {
      return reject(absl::StrCat(
          is_integer ? "holds a number that is no token id" : "holds something that is no integer",
          " at position ", i, is_labels ? " (0 to 2147483647, or -100)" : " (0 to 2147483647)"));
    }
    ids.push_back(static_cast<int32_t>(value));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RawRecord> ParseTokenRecord(const Json& document, const Origin& origin) {
  RawRecord record;
  OSLER_RETURN_IF_ERROR(ReadHead(document, origin, record));
  OSLER_RETURN_IF_ERROR(ReadIds(document, "input_ids", false, record, record.body.input_ids));
  if (record.body.input_ids.empty()) return Reject(origin, kWrongShape, "\"input_ids\" is empty");
  if (FindField(document, "labels") == nullptr) {
    record.body.labels = record.body.input_ids;
    return record;
  }
  OSLER_RETURN_IF_ERROR(ReadIds(document, "labels", true, record, record.body.labels));
  const size_t ids = record.body.input_ids.size(), labels = record.body.labels.size();
  if (ids == labels) return record;
  return Reject(origin, kWrongShape,
                absl::StrCat("\"input_ids\" has ", ids, " items, \"labels\" ", labels,
                             ": they must be equally long"));
}

}  // namespace osler
