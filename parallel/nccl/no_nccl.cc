// In place of nccl_communicator.cc where there was no CUDA toolkit with nccl.h.
#include "base/errors.h"
#include "parallel/nccl/nccl_communicator.h"

namespace osler {

absl::StatusOr<std::unique_ptr<Communicator>> ConnectNccl(Communicator&, int, const NcclOptions&) {
  return DeviceError(
      "NCCL was asked for, but this osler was built without it: build it where a CUDA toolkit with "
      "nccl.h is found (cmake says which), or use MPI or TCP on the CPU");
}

std::string NcclVersion() { return "built without NCCL"; }

}  // namespace osler
