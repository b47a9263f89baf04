#include "parallel/world.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
namespace osler {
absl::StatusOr<World> ConnectWorld(const LaunchInfo&, const ControlTimes&) {
  return World{ControlPlane::Alone(), MakeSingleCommunicator()};
}
}  // namespace osler
