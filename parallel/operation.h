// One rank's part in a collective as the engine (parallel/engine.h) moves it on: phases of
// transfers, with local arithmetic between them.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"
#include "parallel/transport.h"

namespace osler {

class Engine;
class Operation;
struct Group;

// What an operation sees while it posts a phase. Ranks are those of the group.
class Exchange {
 public:
  // Long messages are cut.
  void Send(int to, const void* data, int64_t bytes);
  // One message, of which only `payload` bytes count as traffic.
  void SendNote(int to, const void* data, int64_t bytes, int64_t payload);
  // What comes is `bytes` long, or, if that is a single message, shorter.
  void Receive(int from, void* data, int64_t bytes);
  int world_rank() const;  // this one's
  int world_rank(int rank) const;
  const std::string& group_name() const;

 private:
  friend class Engine;
  Exchange(Group& group, Operation& operation) : group_(group), operation_(operation) {}
  Transfer& Post(int peer, void* data, size_t bytes);

  Group& group_;
  Operation& operation_;
};

// Does not outlive the use of its engine: the engine's end is every operation's.
class Operation : public Work {
 public:
  enum class Next { kTransfers, kDone };

  Operation(Engine& engine, uint64_t record) : engine_(engine), record_(record) {}
  void Wait() override;
  bool Done() const override { return finished_.load(std::memory_order_acquire); }

  // Called when no transfer is under way: first to start, then after each phase. Posts the next
  // phase's transfers, or returns kDone. An error ends the group.
  virtual absl::StatusOr<Next> Advance(Exchange& exchange) = 0;
  virtual std::string Describe() const = 0;  // "all-reduce of 4 Float (sum) of model.norm.weight"
  // Operations of one lane of a group run one after another, in the order they were started.
  virtual int lane() const = 0;
  static constexpr int kCollectives = 0;  // the group's collectives; transfers have others

 private:
  friend class Engine;
  friend class Exchange;

  Engine& engine_;
  const uint64_t record_;
  std::shared_ptr<Group> group_;  // set by Start; let go of at the end
  Transfer::Tally tally_;
  std::deque<Transfer> transfers_;  // of this phase
  std::string error_;               // set before finished_
  std::atomic<bool> finished_ = false;
};

}  // namespace osler
