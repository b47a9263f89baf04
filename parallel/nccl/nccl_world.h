// What all NCCL groups of a rank share: the library, the first failure, and a thread that watches
// what is under way on the device, since the ranks' own threads do not wait for it.
//
// The thread looks at the oldest launch of every group: whether it has ended, whether NCCL or CUDA
// reports an error, whether it is overdue. A launch's time begins when all that it comes behind on
// the device is done, so that the one that hangs is blamed and none that waits for it.
//
// The first failure, from wherever it comes, is of all groups: it ends the rank's CPU collectives,
// then every NCCL communicator, which frees the device.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/nccl/nccl_communicator.h"
#include "parallel/nccl/nccl_event.h"

namespace osler {

// What was put into a group's stream at once.
struct NcclLaunch {
  std::shared_ptr<const NcclEvent> begin, end;  // what it comes behind; its end
  std::string what;                             // "all-reduce of model.norm.weight"
  uint64_t record = 0;                          // of the flight recorder; 0: none
};

// A communicator under watch; guarded by NcclWorld::nccl_mutex.
struct NcclComm {
  const std::string name;
  ncclComm_t comm = nullptr;  // null: not there yet, or ended
  std::deque<NcclLaunch> launches = {};
  std::optional<std::chrono::steady_clock::time_point> since = {};  // the first of them could begin
};

// Thread-safe. Destroyed by one of the rank's own threads.
class NcclWorld {
 public:
  // `cpu` has the rank's number in the world, its flight recorder and the CPU collectives that a
  // failure ends.
  NcclWorld(std::shared_ptr<const NcclLibrary> library, std::shared_ptr<Communicator> cpu,
            int device, NcclOptions options);
  ~NcclWorld();
  NcclWorld(const NcclWorld&) = delete;

  const std::shared_ptr<const NcclLibrary>& library() const { return library_; }
  int device() const { return device_; }
  std::chrono::milliseconds timeout() const { return options_.timeout; }

  // Held during calls of NCCL: a communicator is not ended in the middle of one.
  std::mutex& nccl_mutex() { return nccl_mutex_; }
  // These three with nccl_mutex held.
  void Enter(const std::shared_ptr<NcclComm>& comm);
  void Leave(const NcclComm& comm);
  void Watch(NcclComm& comm, NcclLaunch launch);

  void Fail(const std::string& why);
  [[noreturn]] void Throw(const std::string& why);  // Fail, then a DistError of the first failure
  void ThrowIfFailed();
  bool failed() const;
  // Messages: "rank 3's all-reduce of x in group shard did not end within …".
  std::string Overdue(const NcclComm& comm, const std::string& what) const;
  std::string Broken(const NcclComm& comm, const std::string& what, ncclResult_t result) const;
  std::string Broken(const NcclComm& comm, const std::string& what, cudaError_t result) const;

 private:
  void Run();
  bool WaitForWork();  // false: the watch is over
  void Look(NcclComm& comm);
  void GiveUp();
  std::string Hear();  // the failure, as a thread of the rank
  std::string NameOf(const NcclComm& comm, const std::string& what) const;

  const std::shared_ptr<const NcclLibrary> library_;
  const std::shared_ptr<Communicator> cpu_;
  const int device_;
  const NcclOptions options_;
  std::mutex nccl_mutex_;
  std::vector<std::shared_ptr<NcclComm>> comms_;  // guarded by it
  mutable std::mutex state_mutex_;                // taken last; guards the rest
  std::condition_variable changed_;
  std::string failure_;  // empty: none
  int64_t launches_ = 0;
  bool heard_ = false;  // the failure, by a thread of the rank
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace osler
