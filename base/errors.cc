#include "base/errors.h"

#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"

namespace osler {
namespace {

constexpr char kClassUrl[] = "osler/exit_code";
constexpr char kCommunicationUrl[] = "osler/communication";

absl::StatusCode StatusCodeOf(ExitCode code) {
  switch (code) {
    case ExitCode::kConfig: return absl::StatusCode::kInvalidArgument;
    case ExitCode::kData: return absl::StatusCode::kDataLoss;
    case ExitCode::kDevice: return absl::StatusCode::kUnavailable;
    case ExitCode::kCheckpoint: return absl::StatusCode::kFailedPrecondition;
    case ExitCode::kStopped: return absl::StatusCode::kCancelled;
    default: return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status MakeError(ExitCode code, std::string_view message) {
  const absl::string_view text(message.data(), message.size());
  return Reclassify(absl::Status(StatusCodeOf(code), text), code);
}

absl::Status ConfigError(std::string_view message) { return MakeError(ExitCode::kConfig, message); }
absl::Status DataError(std::string_view message) { return MakeError(ExitCode::kData, message); }
absl::Status DeviceError(std::string_view message) { return MakeError(ExitCode::kDevice, message); }
absl::Status CommunicationError(std::string_view message) {
  absl::Status status = DeviceError(message);
  status.SetPayload(kCommunicationUrl, absl::Cord("1"));
  return status;
}
bool IsCommunicationError(const absl::Status& status) {
  return status.GetPayload(kCommunicationUrl).has_value();
}
absl::Status CheckpointError(std::string_view message) {
  return MakeError(ExitCode::kCheckpoint, message);
}
absl::Status StoppedError(std::string_view message) {
  return MakeError(ExitCode::kStopped, message);
}

ExitCode ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return ExitCode::kDone;
  int value = 0;
  if (auto payload = status.GetPayload(kClassUrl);
      payload.has_value() && absl::SimpleAtoi(std::string(*payload), &value)) {
    return static_cast<ExitCode>(value);
  }
  return ExitCode::kBug;
}

absl::Status Annotate(const absl::Status& status, std::string_view prefix) {
  if (status.ok()) return status;
  absl::Status annotated(
      status.code(),
      absl::StrCat(absl::string_view(prefix.data(), prefix.size()), ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

absl::Status Reclassify(const absl::Status& status, ExitCode code) {
  if (status.ok()) return status;
  absl::Status classed(status.code(), status.message());
  classed.SetPayload(kClassUrl, absl::Cord(absl::StrCat(static_cast<int>(code))));
  return classed;
}

}  // namespace osler
