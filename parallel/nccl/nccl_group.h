// One NCCL communicator with its stream: starting, launching and ending. Used by one thread.
#pragma once

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "parallel/communicator.h"
#include "parallel/nccl/nccl_world.h"

namespace osler {

// A group for transfers from one neighbour to another takes few of the device's processors: several
// may wait there at once, and what they wait for must find room beside them.
enum class NcclUse { kCollectives, kTransfers };

// All may throw c10::DistError; no group of the world is of further use then.
class NcclGroup {
 public:
  // Collective over `cpu`, whose ranks are the group's.
  NcclGroup(std::shared_ptr<NcclWorld> world, Communicator& cpu, NcclUse use);
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  NcclWorld& world() const { return *world_; }
  const NcclLibrary& library() const { return *world_->library(); }
  ncclComm_t comm() const { return comm_->comm; }
  cudaStream_t stream() const { return stream_; }
  void* barrier_word() const { return barrier_word_; }

  // NCCL's calls within `enqueue` as one, after what the default stream holds now. Returns their
  // end; `record` is finished then.
  std::shared_ptr<const NcclEvent> Launch(absl::FunctionRef<void()> enqueue,
                                          const std::string& what, uint64_t record);
  void Check(ncclResult_t result, const std::string& what);
  void Check(cudaError_t result, const std::string& what);

 private:
  void Start(Communicator& cpu, NcclUse use);
  void ConnectNeighbours();
  ncclResult_t State(const std::string& what);  // of the communicator
  // Until the communicator's last call has been taken in.
  void Settle(const std::string& what, std::chrono::milliseconds patience);
  bool Finalize();  // true: it can be destroyed

  const std::shared_ptr<NcclWorld> world_;
  const std::shared_ptr<NcclComm> comm_;
  const int rank_, size_;
  cudaStream_t stream_ = nullptr;
  void* barrier_word_ = nullptr;
};

}  // namespace osler
