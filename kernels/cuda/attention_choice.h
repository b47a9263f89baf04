// Which kernels compute attention on a CUDA device.
#pragma once

#include "absl/status/statusor.h"

namespace osler {

enum class AttentionChoice {
  kAuto,       // Osler's own for this device, and kAten for what they lack
  kSm90,       // Osler's own for sm_90a alone
  kSm80,       // Osler's own for every GPU from Ampere on
  kAten,       // ATen's products in the inputs' type
  kReference,  // ATen's products in the type of sums
};

// OSLER_ATTENTION: sm90, sm80, aten or reference forces one of them. A config error for another
// value. Read once a process.
absl::StatusOr<AttentionChoice> AttentionChoiceOfEnvironment();

}  // namespace osler
