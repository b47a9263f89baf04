// What store.cc (writing) and store_load.cc (reading) share.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/errors.h"
#include "checkpoint/dtype.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/store.h"

namespace osler {

inline constexpr char kLatestName[] = "latest", kBestName[] = "best";
inline constexpr char kTensorFileSuffix[] = ".safetensors";

// An entry as the file has it.
inline TensorToWrite InFile(const StateEntry& entry) {
  if (!entry.parts.has_value()) return ToWrite(entry.name, entry.tensor);
  return {entry.name, DtypeName(entry.parts->dtype), entry.parts->shape, {}};
}

// The checkpoint class with the code kept: callers tell a full disk (kResourceExhausted) from other
// failures.
inline absl::Status AsCheckpointError(const absl::Status& status, const std::string& prefix) {
  if (status.ok()) return status;
  const absl::Status classed = Annotate(Reclassify(status, ExitCode::kCheckpoint), prefix);
  if (status.code() != absl::StatusCode::kResourceExhausted) return classed;
  absl::Status full(status.code(), classed.message());
  classed.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { full.SetPayload(url, payload); });
  return full;
}

}  // namespace osler
