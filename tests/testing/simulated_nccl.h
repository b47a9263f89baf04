// NCCL and CUDA's run-time library on a machine without a GPU: ranks are threads of one process,
// device memory is the CPU's, a stream is a thread with a queue. What NCCL leaves undefined (ranks
// that call different collectives, a rank that does not come) waits until the communicator is
// aborted, as it does there; calls return before they have been taken in; what is under way goes on
// at its own pace, with delays that differ from run to run.
//
// The default stream is the calling thread itself: whatever holds it back holds that thread, as if
// the host asked for a result at once.
#pragma once

#include <atomic>
#include <memory>

#include "parallel/nccl/nccl_communicator.h"

namespace osler::testing {

// Of all simulated ranks. May be changed while they run.
struct NcclSimulation {
  std::atomic<bool> default_stream_waits = true;  // false: what holds it back is ignored
  std::atomic<bool> reports_error = false;        // every communicator says ncclRemoteError
  std::atomic<bool> abort_is_heard = true;        // false: what hangs, hangs on
};

// Takes CPU tensors. One simulation at a time; it must outlive the library. Built where NCCL's
// headers are.
std::shared_ptr<const NcclLibrary> SimulateNccl(NcclSimulation& simulation);

}  // namespace osler::testing
