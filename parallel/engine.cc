#include "parallel/engine.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"

namespace osler {
namespace {

using std::chrono::microseconds;

// Between two looks: at once, then by leave of others (ranks may share cores), then asleep.
void Pause(int idle) {
  if (idle < 16) return;
  if (idle < 64) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(microseconds(std::min(50, 5 + (idle - 64) / 4)));
  }
}

}  // namespace

class Engine::Visit {
 public:
  explicit Visit(Engine& engine) : engine_(engine) {
    ++engine_.visits_;
    lock_ = std::unique_lock(engine_.mutex_);
  }
  ~Visit() {
    const bool last = --engine_.visits_ == 0;
    if (last && engine_.polled_ && !engine_.active_.empty()) engine_.work_.notify_one();
  }
  Visit(const Visit&) = delete;
  std::unique_lock<std::mutex>& lock() { return lock_; }

 private:
  Engine& engine_;
  std::unique_lock<std::mutex> lock_;
};

Engine::Engine(std::vector<std::unique_ptr<Transport>> transports,
               const CommunicatorOptions& options)
    : options_(options), polled_(transports.front()->polled()) {
  for (std::unique_ptr<Transport>& transport : transports) {
    OSLER_CHECK(transport->polled() == polled_);
    members_.push_back(std::make_unique<Member>());
    members_.back()->transport = std::move(transport);
  }
  if (polled_) thread_ = std::thread([this] { RunThread(); });
}

Engine::~Engine() {
  {
    Visit visit(*this);
    if (polled_) {
      DrivePolled(
          visit.lock(), [&] { return active_.empty() || abandoned_; },
          Clock::now() + options_.timeout);
    }
    // Ranks that wait for the rest must not take this end for an orderly one.
    for (const std::shared_ptr<Group>& group : active_) Fail(*group, "the rank's world has ended");
    active_.clear();
    stop_ = true;
    work_.notify_one();
  }
  if (polled_) thread_.join();
}

std::shared_ptr<Group> Engine::Open(Member& member, std::vector<int> ranks, int rank,
                                    uint32_t channel, std::string name) {
  auto group = std::make_shared<Group>();
  group->member = &member;
  group->ranks = std::move(ranks);
  group->rank = rank;
  group->channel = channel;
  group->name = std::move(name);
  const Visit visit(*this);
  member.next_channel = channel + 2;
  return group;
}

void Engine::Close(Group& group) {
  const Visit visit(*this);
  group.closing = true;
  LeaveIfDone(group);
  if (!polled_) Drive();  // others may have waited for this rank
}

void Engine::Abandon(Member& member) {
  const Visit visit(*this);
  abandoned_ = true;
  member.transport->Abandon();
}

void Engine::Abort(Member& member, const std::string& reason) {
  const Visit visit(*this);
  if (!member.failure.empty()) return;
  member.failure = reason;
  for (const std::shared_ptr<Group>& group : active_) {
    if (group->member == &member) Fail(*group, reason);
  }
  abandoned_ = true;
  member.transport->Abandon();
}

void Engine::Start(const std::shared_ptr<Group>& group, std::shared_ptr<Operation> operation) {
  const Visit visit(*this);
  operation->group_ = group;
  const std::string& failure =
      group->member->failure.empty() ? group->failure : group->member->failure;
  if (!failure.empty()) return Finish(*operation, failure);
  group->lanes[operation->lane()].push_back(std::move(operation));
  if (!group->active) {
    group->active = true;
    active_.push_back(group);
  }
  Drive();
}

void Engine::Wait(Operation& operation) {
  if (!operation.Done()) {
    Visit visit(*this);
    const Clock::time_point deadline = Clock::now() + options_.timeout;
    const auto done = [&] { return operation.Done(); };
    if (polled_) {
      DrivePolled(visit.lock(), done, deadline);
    } else if (!done()) {
      operation.group_->member->changed.wait_until(visit.lock(), deadline, done);
    }
    if (!done()) Fail(*operation.group_, TimedOut(operation));
  }
  if (!operation.error_.empty()) C10_THROW_ERROR(DistError, operation.error_);
}

void Engine::DrivePolled(std::unique_lock<std::mutex>& lock, absl::FunctionRef<bool()> done,
                         Clock::time_point deadline) {
  for (int idle = 0; !done() && Clock::now() < deadline;) {
    idle = Drive() ? 0 : idle + 1;
    if (done()) return;
    lock.unlock();
    Pause(idle);
    lock.lock();
  }
}

void Engine::RunThread() {
  std::unique_lock lock(mutex_);
  for (int idle = 0; !stop_;) {
    if (active_.empty() || visits_ > 0) {
      work_.wait(lock);
      idle = 0;
      continue;
    }
    idle = Drive() ? 0 : idle + 1;
    lock.unlock();
    Pause(idle);
    lock.lock();
  }
}

bool Engine::Drive() {
  bool any = false;
  if (polled_ && !active_.empty()) members_.front()->transport->Poll();
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < active_.size(); ++i) changed |= Step(*active_[i]);
    any |= changed;
    if (polled_) break;  // somebody else may want the lock
  }
  std::erase_if(active_, [](const std::shared_ptr<Group>& group) {
    group->active = !group->lanes.empty();
    return !group->active;
  });
  return any;
}

bool Engine::Step(Group& group) {
  bool changed = false;
  for (auto next = group.lanes.begin(); next != group.lanes.end();) {
    const auto lane = next++;
    auto& queue = lane->second;
    do {
      changed |= Advance(group, *queue.front());
      if (!group.failure.empty()) return true;  // and the lanes are gone
      if (!queue.front()->Done()) break;
      queue.pop_front();
    } while (!queue.empty());
    if (queue.empty()) group.lanes.erase(lane);
  }
  if (changed) LeaveIfDone(group);
  return changed;
}

bool Engine::Advance(Group& group, Operation& operation) {
  bool changed = false;
  while (true) {
    if (operation.tally_.broken > 0) {
      Fail(group, Broken(operation));
      return true;
    }
    if (operation.tally_.under_way > 0) return changed;
    changed = true;
    Exchange exchange(group, operation);
    std::deque<Transfer>& transfers = operation.transfers_;
    const size_t over = transfers.size();
    const absl::StatusOr<Operation::Next> next = operation.Advance(exchange);
    for (size_t i = 0; i < over; ++i) transfers.pop_front();
    if (!next.ok()) {
      Fail(group, std::string(next.status().message()));
      return true;
    }
    if (*next == Operation::Next::kDone) {
      Finish(operation, {});
      return true;
    }
  }
}

void Engine::Finish(Operation& operation, const std::string& error) {
  operation.error_ = error;
  Member& member = *operation.group_->member;
  if (error.empty()) member.recorder->Finish(operation.record_);
  operation.finished_.store(true, std::memory_order_release);
  member.changed.notify_all();
}

void Engine::Fail(Group& group, const std::string& why) {
  group.failure = why;
  const auto end = [&](std::shared_ptr<Operation>& operation) {
    Finish(*operation, why);
    if (operation->tally_.under_way > 0) stranded_.push_back(std::move(operation));
  };
  for (auto& [_, lane] : group.lanes) {
    for (std::shared_ptr<Operation>& operation : lane) end(operation);
  }
  group.lanes.clear();
  abandoned_ = true;
  group.member->transport->Abandon();
  LeaveIfDone(group);
}

void Engine::LeaveIfDone(Group& group) {
  if (!group.closing || group.left || !group.lanes.empty()) return;
  group.left = true;
  group.member->transport->Leave(group.channel);
  group.member->transport->Leave(group.channel + 1);
}

std::string Engine::NameOf(const Operation& operation) {
  const Group& group = *operation.group_;
  return absl::StrCat("rank ", group.member->transport->rank(), "'s ", operation.Describe(),
                      " in group ", group.name);
}

std::string Engine::Broken(const Operation& operation) const {
  const Transfer* first = nullptr;
  for (const Transfer& transfer : operation.transfers_) {
    if (transfer.state() == Transfer::State::kFailed) {
      return absl::StrCat(NameOf(operation), " failed in its exchange with rank ", transfer.peer,
                          ": ", transfer.error());
    }
    if (transfer.state() != Transfer::State::kLeft) continue;
    if (first == nullptr || transfer.left_order() < first->left_order()) first = &transfer;
  }
  OSLER_CHECK(first != nullptr);
  const Group& group = *operation.group_;
  return absl::StrCat("rank ", first->peer, " left before the ", operation.Describe(),
                      " that rank ", group.member->transport->rank(), " waited in, in group ",
                      group.name, ": see rank ", first->peer, "'s own error");
}

std::string Engine::TimedOut(const Operation& operation) const {
  // It may stand behind another one.
  const Operation& head = *operation.group_->lanes.at(operation.lane()).front();
  std::vector<int> missing;
  for (const Transfer& transfer : head.transfers_) {
    if (transfer.state() == Transfer::State::kUnderWay) missing.push_back(transfer.peer);
  }
  std::sort(missing.begin(), missing.end());
  missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
  return absl::StrCat(NameOf(head), " did not end within ", options_.timeout.count(),
                      " ms: it waits for rank", missing.size() == 1 ? " " : "s ",
                      absl::StrJoin(missing, ", "),
                      "; a rank may hang, or be in another collective: see the other ranks' logs");
}

}  // namespace osler
