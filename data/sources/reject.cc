#include "data/sources/reject.h"

#include "absl/strings/cord.h"
#include "base/errors.h"

namespace osler {
namespace {

constexpr char kPayload[] = "osler/reject_reason";

}  // namespace

absl::Status Reject(const Origin& origin, std::string_view reason, std::string_view why) {
  std::string message = PlaceOf(origin) + ": ";
  message += why;
  return WithReason(DataError(message), reason);
}

absl::Status WithReason(absl::Status status, std::string_view reason) {
  status.SetPayload(kPayload, absl::Cord(std::string(reason)));
  return status;
}

std::string RejectReason(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayload);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace osler
