// In place of simulated_nccl.cc where there is no nccl.h.
#include "tests/testing/simulated_nccl.h"

namespace osler::testing {

std::shared_ptr<const NcclLibrary> SimulateNccl(NcclSimulation&) { return nullptr; }

}  // namespace osler::testing
