// Why a record was left out: a data error that also carries a short class for counting.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "data/record.h"

namespace osler {

// Classes, as they stand in report.json.
inline constexpr std::string_view kMalformed =
    "malformed";  // no JSON or CSV, not UTF-8, too long, too deep
inline constexpr std::string_view kWrongShape =
    "wrong_shape";  // readable, but not a record as asked for
inline constexpr std::string_view kNoTarget = "no_target";       // nothing to learn from
inline constexpr std::string_view kRefused = "refused_by_gate";  // the gate could not vouch for it

// "FILE:LINE: why" (PlaceOf), never record text.
absl::Status Reject(const Origin& origin, std::string_view reason, std::string_view why);
absl::Status WithReason(absl::Status status, std::string_view reason);
// The class of a rejected record; empty for an error that is not about one record (a file that
// cannot be read).
std::string RejectReason(const absl::Status& status);

}  // namespace osler
