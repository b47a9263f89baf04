#include "parallel/nccl/nccl_group.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace osler {
namespace {

// The stream that torch uses unless told otherwise.
constexpr cudaStream_t kDefaultStream = nullptr;

// Ranks come to the start of a group at their own pace, and NCCL looks at the machine then.
constexpr std::chrono::seconds kLeastStart{60};

constexpr size_t kWords = 3;  // one for barriers, all for the first transfers

ncclUniqueId ShareId(const NcclLibrary& library, Communicator& cpu) {
  ncclUniqueId id = {};
  at::Tensor words = at::zeros({NCCL_UNIQUE_ID_BYTES / 8}, at::kLong);
  if (cpu.rank() == 0) {
    const ncclResult_t made = library.ncclGetUniqueId(&id);
    if (made != ncclSuccess) {
      C10_THROW_ERROR(DistError,
                      absl::StrCat("NCCL made no unique id: ", library.ncclGetErrorString(made)));
    }
    std::memcpy(words.mutable_data_ptr(), &id, sizeof id);
  }
  cpu.Broadcast(words, 0, "NCCL's unique id").Wait();
  std::memcpy(&id, words.const_data_ptr(), sizeof id);
  return id;
}

}  // namespace

void NcclWorld::Abort(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (abort_reason_.empty()) abort_reason_ = reason;
}

std::string NcclWorld::abort_reason() const {
  const std::lock_guard lock(mutex_);
  return abort_reason_;
}

NcclEvent::NcclEvent(std::shared_ptr<const NcclLibrary> library) : library_(std::move(library)) {
  library_->cudaEventCreateWithFlags(&event_, cudaEventDisableTiming);
}

NcclEvent::~NcclEvent() { library_->cudaEventDestroy(event_); }

void NcclEvent::Record(cudaStream_t stream) const { library_->cudaEventRecord(event_, stream); }

void NcclEvent::HoldBack(cudaStream_t stream) const {
  library_->cudaStreamWaitEvent(stream, event_, 0);
}

cudaError_t NcclEvent::Query() const { return library_->cudaEventQuery(event_); }

NcclGroup::NcclGroup(std::shared_ptr<NcclWorld> world, Communicator& cpu)
    : world_(std::move(world)), name_(cpu.name()), rank_(cpu.rank()), size_(cpu.size()) {
  const std::string what = "the start";
  Check(library().cudaSetDevice(world_->device), what);
  Check(library().cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), what);
  Check(library().cudaMalloc(&barrier_word_, kWords * sizeof(int64_t)), what);
  const ncclUniqueId id = ShareId(library(), cpu);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  Check(library().ncclCommInitRankConfig(&comm_, cpu.size(), id, cpu.rank(), &config), what);
  Settle(what, std::max<Clock::duration>(world_->options.timeout, kLeastStart));
  ConnectNeighbours(what);
}

// NCCL connects two ranks at their first transfer and holds its callers until both are there. A
// rank that is to compute something for the other first would wait for ever; so they meet here.
void NcclGroup::ConnectNeighbours(const std::string& what) {
  if (size_ == 1) return;
  auto* words = static_cast<int64_t*>(barrier_word_);
  const auto exchange = [&] {
    for (const int step : {1, size_ - 1}) {
      const int to = (rank_ + step) % size_, from = (rank_ + size_ - step) % size_;
      Check(library().ncclSend(words, 1, ncclInt64, to, comm_, stream_), what);
      Check(library().ncclRecv(++words, 1, ncclInt64, from, comm_, stream_), what);
    }
  };
  Await(*Launch(exchange, what), what);
}

NcclGroup::~NcclGroup() {
  if (comm_ != nullptr) {
    // In order only if it is idle and well.
    if (IsReady() && Finalize()) {
      library().ncclCommDestroy(comm_);
    } else {
      library().ncclCommAbort(comm_);
    }
  }
  if (barrier_word_ != nullptr) library().cudaFree(barrier_word_);
  if (stream_ != nullptr) library().cudaStreamDestroy(stream_);
}

bool NcclGroup::IsReady() const {
  ncclResult_t state = ncclSuccess;
  return library().ncclCommGetAsyncError(comm_, &state) == ncclSuccess && state == ncclSuccess;
}

// Destroying a communicator before what Finalize began has ended is refused, and leaves NCCL's
// threads at work on it.
bool NcclGroup::Finalize() const {
  const ncclResult_t begun = library().ncclCommFinalize(comm_);
  if (begun != ncclSuccess && begun != ncclInProgress) return false;
  const Clock::time_point deadline = Clock::now() + world_->options.timeout;
  while (Clock::now() < deadline && world_->abort_reason().empty()) {
    ncclResult_t state = ncclSuccess;
    if (library().ncclCommGetAsyncError(comm_, &state) != ncclSuccess) return false;
    if (state != ncclInProgress) return state == ncclSuccess;
    std::this_thread::yield();
  }
  return false;
}

std::shared_ptr<NcclEvent> NcclGroup::Launch(absl::FunctionRef<void()> enqueue,
                                             const std::string& what) {
  if (!failure_.empty()) Throw();
  NcclEvent before(world_->library);
  before.Record(kDefaultStream);
  before.HoldBack(stream_);
  Check(library().ncclGroupStart(), what);
  enqueue();
  Check(library().ncclGroupEnd(), what);
  Settle(what, world_->options.timeout);
  auto end = std::make_shared<NcclEvent>(world_->library);
  end->Record(stream_);
  return end;
}

void NcclGroup::Await(const NcclEvent& event, const std::string& what) {
  if (!failure_.empty()) Throw();
  const Clock::time_point deadline = Clock::now() + world_->options.timeout;
  for (int looks = 0;; ++looks) {
    const cudaError_t state = event.Query();
    if (state == cudaSuccess) return;
    if (state != cudaErrorNotReady) Check(state, what);
    CheckOn(deadline, what);
    if (looks < 1000) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
}

void NcclGroup::Settle(const std::string& what, Clock::duration patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  while (true) {
    ncclResult_t state = ncclSuccess;
    Check(library().ncclCommGetAsyncError(comm_, &state), what);
    if (state == ncclSuccess) return;
    CheckOn(deadline, what);
    std::this_thread::yield();
  }
}

void NcclGroup::CheckOn(Clock::time_point deadline, const std::string& what) {
  ncclResult_t state = ncclSuccess;
  Check(library().ncclCommGetAsyncError(comm_, &state), what);
  Check(state, what);
  if (const std::string reason = world_->abort_reason(); !reason.empty()) Fail(reason);
  if (Clock::now() < deadline) return;
  Fail(absl::StrCat("rank ", world_->rank, "'s ", what, " in group ", name_, " did not end within ",
                    world_->options.timeout.count(),
                    " ms over NCCL; a rank may hang, or be in another collective: see the other "
                    "ranks' logs"));
}

void NcclGroup::Check(ncclResult_t result, const std::string& what) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  Fail(absl::StrCat("rank ", world_->rank, "'s ", what, " in group ", name_,
                    " failed: NCCL says: ", library().ncclGetErrorString(result),
                    "; a rank may have died: see the other ranks' logs, and NCCL_DEBUG=INFO"));
}

void NcclGroup::Check(cudaError_t result, const std::string& what) {
  if (result == cudaSuccess) return;
  Fail(absl::StrCat("rank ", world_->rank, "'s ", what, " in group ", name_,
                    " failed: CUDA says: ", library().cudaGetErrorString(result)));
}

void NcclGroup::Fail(const std::string& why) {
  failure_ = why;
  if (comm_ != nullptr) library().ncclCommAbort(std::exchange(comm_, nullptr));
  Throw();
}

void NcclGroup::Throw() const { C10_THROW_ERROR(DistError, failure_); }

}  // namespace osler
