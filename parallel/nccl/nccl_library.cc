#include "parallel/nccl/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

// The major version that the headers are of.
constexpr int kCudaMajor = CUDART_VERSION / 1000;

absl::StatusOr<void*> Open(const std::string& name) {
  // RTLD_GLOBAL: torch's own CUDA libraries, should they be loaded later, use these.
  if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_GLOBAL)) return library;
  return DeviceError(absl::StrCat(
      "NCCL was asked for, but ", name, " cannot be loaded (", dlerror(),
      "): install the CUDA libraries of the torch wheel, or use MPI or TCP on the CPU"));
}

// Fills function pointers by name; the first that is missing is kept.
class Binder {
 public:
  explicit Binder(void* library) : library_(library) {}
  template <typename Function>
  void Bind(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  absl::Status status() const {
    if (missing_.empty()) return absl::OkStatus();
    return DeviceError(absl::StrCat("the CUDA or NCCL library has no ", missing_,
                                    ": it is older than the one osler was built for"));
  }

 private:
  void* library_;
  std::string missing_;
};

absl::Status BindNccl(void* library, NcclLibrary& f) {
  Binder binder(library);
  binder.Bind("ncclGetVersion", f.ncclGetVersion);
  binder.Bind("ncclGetErrorString", f.ncclGetErrorString);
  binder.Bind("ncclGetUniqueId", f.ncclGetUniqueId);
  binder.Bind("ncclCommInitRankConfig", f.ncclCommInitRankConfig);
  binder.Bind("ncclCommGetAsyncError", f.ncclCommGetAsyncError);
  binder.Bind("ncclCommFinalize", f.ncclCommFinalize);
  binder.Bind("ncclCommDestroy", f.ncclCommDestroy);
  binder.Bind("ncclCommAbort", f.ncclCommAbort);
  binder.Bind("ncclGroupStart", f.ncclGroupStart);
  binder.Bind("ncclGroupEnd", f.ncclGroupEnd);
  binder.Bind("ncclAllReduce", f.ncclAllReduce);
  binder.Bind("ncclAllGather", f.ncclAllGather);
  binder.Bind("ncclReduceScatter", f.ncclReduceScatter);
  binder.Bind("ncclBroadcast", f.ncclBroadcast);
  binder.Bind("ncclSend", f.ncclSend);
  binder.Bind("ncclRecv", f.ncclRecv);
  return binder.status();
}

absl::Status BindCuda(void* library, NcclLibrary& f) {
  Binder binder(library);
  binder.Bind("cudaGetErrorString", f.cudaGetErrorString);
  binder.Bind("cudaGetDeviceCount", f.cudaGetDeviceCount);
  binder.Bind("cudaSetDevice", f.cudaSetDevice);
  binder.Bind("cudaMalloc", f.cudaMalloc);
  binder.Bind("cudaFree", f.cudaFree);
  binder.Bind("cudaMemcpyAsync", f.cudaMemcpyAsync);
  binder.Bind("cudaStreamCreateWithFlags", f.cudaStreamCreateWithFlags);
  binder.Bind("cudaStreamDestroy", f.cudaStreamDestroy);
  binder.Bind("cudaStreamWaitEvent", f.cudaStreamWaitEvent);
  binder.Bind("cudaEventCreateWithFlags", f.cudaEventCreateWithFlags);
  binder.Bind("cudaEventRecord", f.cudaEventRecord);
  binder.Bind("cudaEventQuery", f.cudaEventQuery);
  binder.Bind("cudaEventDestroy", f.cudaEventDestroy);
  return binder.status();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NcclLibrary>> LoadNccl() {
  // Groups connect when they are made. At their first collective, as is NCCL's way since 2.22, a
  // rank would be held until the others come to it, which may wait for that rank in another group.
  setenv("NCCL_RUNTIME_CONNECT", "0", /*overwrite=*/0);
  OSLER_ASSIGN_OR_RETURN(void* const cuda, Open(absl::StrCat("libcudart.so.", kCudaMajor)));
  OSLER_ASSIGN_OR_RETURN(void* const nccl, Open("libnccl.so.2"));
  auto library = std::make_shared<NcclLibrary>();
  OSLER_RETURN_IF_ERROR(BindCuda(cuda, *library));
  OSLER_RETURN_IF_ERROR(BindNccl(nccl, *library));
  return library;
}

}  // namespace osler
