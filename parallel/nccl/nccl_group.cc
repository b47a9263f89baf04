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

using Clock = std::chrono::steady_clock;

// Ranks come to the start of a group at their own pace, and NCCL looks at the machine then.
constexpr std::chrono::milliseconds kLeastStart{60'000};

constexpr size_t kWords = 3;  // one for barriers, all for the first transfers

constexpr int kMostTransferBlocks = 8;

constexpr char kStart[] = "the start";

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

NcclGroup::NcclGroup(std::shared_ptr<NcclWorld> world, Communicator& cpu, NcclUse use)
    : world_(std::move(world)),
      comm_(std::make_shared<NcclComm>(NcclComm{cpu.name()})),
      rank_(cpu.rank()),
      size_(cpu.size()) {
  Check(library().cudaSetDevice(world_->device()), kStart);
  Check(library().cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), kStart);
  Check(library().cudaMalloc(&barrier_word_, kWords * sizeof(int64_t)), kStart);
  Start(cpu, use);
  ConnectNeighbours();
}

void NcclGroup::Start(Communicator& cpu, NcclUse use) {
  const ncclUniqueId id = ShareId(library(), cpu);
  {
    const std::lock_guard lock(world_->nccl_mutex());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (use == NcclUse::kTransfers) config.maxCTAs = kMostTransferBlocks;
    Check(library().ncclCommInitRankConfig(&comm_->comm, size_, id, rank_, &config), kStart);
    world_->Enter(comm_);
  }
  Settle(kStart, std::max(world_->timeout(), kLeastStart));
}

// NCCL connects two ranks at their first transfer and holds its callers until both are there. A
// rank that is to compute something for the other first would wait for ever; so they meet here.
void NcclGroup::ConnectNeighbours() {
  if (size_ == 1) return;
  auto* words = static_cast<int64_t*>(barrier_word_);
  const auto exchange = [&] {
    for (const int step : {1, size_ - 1}) {
      const int to = (rank_ + step) % size_, from = (rank_ + size_ - step) % size_;
      Check(library().ncclSend(words, 1, ncclInt64, to, comm(), stream_), kStart);
      Check(library().ncclRecv(++words, 1, ncclInt64, from, comm(), stream_), kStart);
    }
  };
  const auto end = Launch(exchange, kStart, 0);
  while (end->Query() == cudaErrorNotReady) {
    world_->ThrowIfFailed();
    std::this_thread::yield();
  }
  world_->ThrowIfFailed();
}

NcclGroup::~NcclGroup() {
  const bool idle = !world_->failed() && Finalize();
  const std::lock_guard lock(world_->nccl_mutex());
  world_->Leave(*comm_);
  // Null after a failure: the world has ended it. Freeing memory would wait for the device then.
  if (comm_->comm == nullptr) return;
  idle ? library().ncclCommDestroy(comm_->comm) : library().ncclCommAbort(comm_->comm);
  library().cudaFree(barrier_word_);
  library().cudaStreamDestroy(stream_);
}

// Destroying a communicator before what Finalize began has ended is refused, and leaves NCCL's
// threads at work on it.
bool NcclGroup::Finalize() {
  const Clock::time_point deadline = Clock::now() + world_->timeout();
  for (bool begun = false; !world_->failed() && Clock::now() < deadline;) {
    {
      const std::lock_guard lock(world_->nccl_mutex());
      if (comm_->comm == nullptr) return false;
      ncclResult_t state = ncclSuccess;
      if (library().ncclCommGetAsyncError(comm_->comm, &state) != ncclSuccess) return false;
      if (state != ncclSuccess && state != ncclInProgress) return false;
      if (begun && state == ncclSuccess) return true;
      if (!begun && state == ncclSuccess) {
        const ncclResult_t result = library().ncclCommFinalize(comm_->comm);
        if (result != ncclSuccess && result != ncclInProgress) return false;
        begun = true;
      }
    }
    std::this_thread::yield();
  }
  return false;
}

std::shared_ptr<const NcclEvent> NcclGroup::Launch(absl::FunctionRef<void()> enqueue,
                                                   const std::string& what, uint64_t record) {
  world_->ThrowIfFailed();
  const auto begin = std::make_shared<NcclEvent>(world_->library());
  begin->Record(kDefaultStream);
  begin->HoldBack(stream_);
  {
    const std::lock_guard lock(world_->nccl_mutex());
    if (comm_->comm == nullptr) world_->ThrowIfFailed();
    Check(library().ncclGroupStart(), what);
    enqueue();
    Check(library().ncclGroupEnd(), what);
  }
  Settle(what, world_->timeout());
  const auto end = std::make_shared<NcclEvent>(world_->library());
  end->Record(stream_);
  const std::lock_guard lock(world_->nccl_mutex());
  world_->Watch(*comm_, {begin, end, what, record});
  return end;
}

ncclResult_t NcclGroup::State(const std::string& what) {
  const std::lock_guard lock(world_->nccl_mutex());
  if (comm_->comm == nullptr) world_->ThrowIfFailed();
  ncclResult_t state = ncclSuccess;
  Check(library().ncclCommGetAsyncError(comm_->comm, &state), what);
  Check(state, what);
  return state;
}

void NcclGroup::Settle(const std::string& what, std::chrono::milliseconds patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  while (State(what) == ncclInProgress) {
    world_->ThrowIfFailed();
    if (Clock::now() >= deadline) world_->Throw(world_->Overdue(*comm_, what));
    std::this_thread::yield();
  }
}

void NcclGroup::Check(ncclResult_t result, const std::string& what) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  world_->Throw(world_->Broken(*comm_, what, result));
}

void NcclGroup::Check(cudaError_t result, const std::string& what) {
  if (result != cudaSuccess) world_->Throw(world_->Broken(*comm_, what, result));
}

}  // namespace osler
