// The classes of failure a user meets, as absl::Status values that remember their exit code.
//
// A message says what was wrong, where (file, line, record number, offset) and what to do; it never
// carries record text. The class survives annotation and travels between ranks with the status.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace osler {

// Process exit codes; docs/errors.md lists them for users.
enum class ExitCode : int {
  kDone = 0,
  kConfig = 2,      // a setting, a flag or a model directory that cannot be used as asked
  kData = 3,        // sources, shards, certificates, records
  kDevice = 4,      // device or communication
  kCheckpoint = 5,  // checkpoints: damaged, of another run, not writable
  kBug = 70,        // our own fault
  kStopped = 75,    // stopped on request after a durable checkpoint: run again to continue
};

absl::Status ConfigError(std::string_view message);
absl::Status DataError(std::string_view message);
absl::Status DeviceError(std::string_view message);
// A device error that says only that other ranks cannot be reached: its cause may lie with them.
absl::Status CommunicationError(std::string_view message);
bool IsCommunicationError(const absl::Status& status);
absl::Status CheckpointError(std::string_view message);
absl::Status StoppedError(std::string_view message);
absl::Status MakeError(ExitCode code, std::string_view message);

// The exit code of a status: its class; kDone if ok; kBug for a status no one classified.
ExitCode ExitCodeOf(const absl::Status& status);

// The same status (code and class) with "prefix: " before the message. OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view prefix);

// The same message and code under another class, for example a file error met while loading a
// checkpoint.
absl::Status Reclassify(const absl::Status& status, ExitCode code);

}  // namespace osler
