// Moves any number of operations of any number of groups on, over one transport a rank.
//
// An operation is a sequence of phases: transfers that are all under way together, then local
// arithmetic that leads to the next phase. The collectives of a group run one after another, in the
// order they were started, and so do the transfers from one rank to another; apart from that
// everything goes side by side.
//
// Who works: a transport that is polled has a thread that moves things on while the ranks compute,
// and sleeps when there is nothing to do; a rank that waits does so itself, which is quicker. One
// that is not polled (thread ranks) needs neither: whoever starts an operation moves all ranks'
// operations as far as they go. Everything happens under one lock, so ranks of one engine take
// turns with arithmetic.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "parallel/communicator.h"
#include "parallel/operation.h"
#include "parallel/transport.h"

namespace osler {

struct CommunicatorOptions {
  // How long a wait may last without the operation's end. Shared by all groups of a world.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
};

// A rank's part in an engine.
struct Member {
  std::unique_ptr<Transport> transport;
  std::shared_ptr<FlightRecorder> recorder = std::make_shared<FlightRecorder>();
  uint32_t next_channel = 0;
  std::string failure;  // of every group; empty: none
  std::condition_variable changed;
};

// A rank's view of a group; guarded by the engine's lock.
struct Group {
  Member* member;
  std::vector<int> ranks;  // world rank of each rank
  int rank = 0;            // this one's
  uint32_t channel = 0;    // and channel + 1 for transfers from point to point
  std::string name;
  // By lane, none empty; the first of each is under way.
  std::map<int, std::deque<std::shared_ptr<Operation>>> lanes;
  std::string failure;
  bool closing = false, left = false, active = false;
  std::atomic<int64_t> bytes_sent = 0;
};

class Engine {
 public:
  // Transports all polled, or all not.
  Engine(std::vector<std::unique_ptr<Transport>> transports, const CommunicatorOptions& options);
  // Polled: first moves what is under way to its end, unless something failed. Operations that are
  // unfinished then, fail.
  ~Engine();

  Member& member(size_t i) { return *members_[i]; }
  // A group of `member`, whose rank `rank` of `ranks` it is. Channels are the same on all ranks of
  // a group, and no two groups of one rank have the same.
  std::shared_ptr<Group> Open(Member& member, std::vector<int> ranks, int rank, uint32_t channel,
                              std::string name);
  // The rank starts nothing more in the group; what is under way goes on.
  void Close(Group& group);
  // The member leaves after a failure: nothing is ended in order.
  void Abandon(Member& member);
  void Start(const std::shared_ptr<Group>& group, std::shared_ptr<Operation> operation);
  void Wait(Operation& operation);
  // All groups of the member fail, now and later.
  void Abort(Member& member, const std::string& reason);

 private:
  using Clock = std::chrono::steady_clock;
  // Holds the lock for a caller. The thread, which would otherwise take it again and again, steps
  // aside while anyone is inside or at the door.
  class Visit;

  void RunThread();
  // The lock is held in all that follow. The first three return whether anything went on.
  bool Drive();
  bool Step(Group& group);
  bool Advance(Group& group, Operation& operation);
  void Finish(Operation& operation, const std::string& error);
  void Fail(Group& group, const std::string& why);
  void LeaveIfDone(Group& group);
  // Until it is done or the time is over.
  void DrivePolled(std::unique_lock<std::mutex>& lock, absl::FunctionRef<bool()> done,
                   Clock::time_point deadline);
  static std::string NameOf(const Operation& operation);  // with rank and group
  std::string Broken(const Operation& operation) const;
  std::string TimedOut(const Operation& operation) const;

  const CommunicatorOptions options_;
  std::mutex mutex_;
  std::condition_variable work_;  // for the thread
  std::vector<std::unique_ptr<Member>> members_;
  std::vector<std::shared_ptr<Group>> active_;  // with something under way
  // Operations that failed with transfers under way: their memory may still be written.
  std::vector<std::shared_ptr<Operation>> stranded_;
  std::atomic<int> visits_ = 0;
  bool polled_ = false, abandoned_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace osler
