// One NCCL communicator with its stream: launching, waiting and ending. Used by one thread.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "parallel/communicator.h"
#include "parallel/engine.h"
#include "parallel/nccl/nccl_library.h"

namespace osler {

// What all groups of a rank share.
struct NcclWorld {
  std::shared_ptr<const NcclLibrary> library;
  int device = 0, rank = 0;  // of the world
  CommunicatorOptions options;

  void Abort(const std::string& reason);
  std::string abort_reason() const;  // empty: none

 private:
  mutable std::mutex mutex_;
  std::string abort_reason_;
};

// A point in a stream.
class NcclEvent {
 public:
  explicit NcclEvent(std::shared_ptr<const NcclLibrary> library);
  ~NcclEvent();
  NcclEvent(const NcclEvent&) = delete;
  void Record(cudaStream_t stream) const;
  void HoldBack(cudaStream_t stream) const;  // what comes later in it waits for the event
  cudaError_t Query() const;

 private:
  std::shared_ptr<const NcclLibrary> library_;
  cudaEvent_t event_ = nullptr;
};

// All may throw c10::DistError; the group is of no further use then.
class NcclGroup {
 public:
  // Collective over `cpu`, whose ranks are the group's.
  NcclGroup(std::shared_ptr<NcclWorld> world, Communicator& cpu);
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const NcclLibrary& library() const { return *world_->library; }
  ncclComm_t comm() const { return comm_; }
  cudaStream_t stream() const { return stream_; }
  void* barrier_word() const { return barrier_word_; }

  // NCCL's calls within `enqueue` as one, after what the default stream holds now. Returns their
  // end.
  std::shared_ptr<NcclEvent> Launch(absl::FunctionRef<void()> enqueue, const std::string& what);
  // Holds the thread until then.
  void Await(const NcclEvent& event, const std::string& what);
  [[noreturn]] void Throw() const;  // what the group failed of
  void Check(ncclResult_t result, const std::string& what);
  void Check(cudaError_t result, const std::string& what);

 private:
  using Clock = std::chrono::steady_clock;

  void ConnectNeighbours(const std::string& what);
  bool IsReady() const;
  bool Finalize() const;  // true: it can be destroyed
  // Until the communicator's last call has been taken in.
  void Settle(const std::string& what, Clock::duration patience);
  void CheckOn(Clock::time_point deadline, const std::string& what);
  [[noreturn]] void Fail(const std::string& why);

  const std::shared_ptr<NcclWorld> world_;
  const std::string name_;
  const int rank_, size_;
  ncclComm_t comm_ = nullptr;
  cudaStream_t stream_ = nullptr;
  void* barrier_word_ = nullptr;
  std::string failure_;
};

}  // namespace osler
