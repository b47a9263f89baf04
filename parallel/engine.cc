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

Transfer& Exchange::Post(int peer, void* data, size_t bytes) {
  const uint32_t channel = group_.channel + (operation_.point_to_point() ? 1 : 0);
  return operation_.transfers_.emplace_back(
      operation_.tally_, group_.ranks[static_cast<size_t>(peer)], channel, data, bytes);
}

void Exchange::SendNote(int to, const void* data, int64_t bytes, int64_t payload) {
  group_.bytes_sent.fetch_add(payload, std::memory_order_relaxed);
  group_.member->transport->Send(Post(to, const_cast<void*>(data), static_cast<size_t>(bytes)));
}

void Exchange::Send(int to, const void* data, int64_t bytes) {
  constexpr auto kMost = static_cast<int64_t>(kMaxMessageBytes);
  for (int64_t begin = 0; begin < bytes; begin += kMost) {
    const int64_t part = std::min(kMost, bytes - begin);
    SendNote(to, static_cast<const char*>(data) + begin, part, part);
  }
}

Transfer* Exchange::Receive(int from, void* data, int64_t bytes) {
  constexpr auto kMost = static_cast<int64_t>(kMaxMessageBytes);
  Transfer* last = nullptr;
  for (int64_t begin = 0; begin < bytes; begin += kMost) {
    last = &Post(from, static_cast<char*>(data) + begin,
                 static_cast<size_t>(std::min(kMost, bytes - begin)));
    group_.member->transport->Receive(*last);
  }
  return last;
}

int Exchange::world_rank() const { return group_.member->transport->rank(); }

int Exchange::world_rank(int rank) const { return group_.ranks[static_cast<size_t>(rank)]; }

const std::string& Exchange::group_name() const { return group_.name; }

void Operation::Wait() { engine_.Wait(*this); }

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
  if (!polled_) return;
  {
    std::unique_lock lock(mutex_);
    const Clock::time_point deadline = Clock::now() + options_.timeout;
    ++waiting_;
    for (int idle = 0; !active_.empty() && !abandoned_ && Clock::now() < deadline;) {
      idle = Drive() ? 0 : idle + 1;
      lock.unlock();
      Pause(idle);
      lock.lock();
    }
    // Ranks that still wait must not take this one's end for an orderly one.
    if (!active_.empty()) members_.front()->transport->Abandon();
    stop_ = true;
    work_.notify_one();
  }
  thread_.join();
}

std::shared_ptr<Group> Engine::Open(Member& member, std::vector<int> ranks, int rank,
                                    uint32_t channel, std::string name) {
  auto group = std::make_shared<Group>();
  group->member = &member;
  group->ranks = std::move(ranks);
  group->rank = rank;
  group->channel = channel;
  group->name = std::move(name);
  const std::lock_guard lock(mutex_);
  member.next_channel = channel + 2;
  return group;
}

void Engine::Close(Group& group) {
  const std::lock_guard lock(mutex_);
  group.closing = true;
  LeaveIfDone(group);
  if (!polled_) Drive();  // others may have waited for this rank
}

void Engine::Abandon(Member& member) {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  member.transport->Abandon();
}

void Engine::Abort(Member& member, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!member.failure.empty()) return;
  member.failure = reason;
  for (const std::shared_ptr<Group>& group : active_) {
    if (group->member == &member) Fail(*group, reason);
  }
  abandoned_ = true;
  member.transport->Abandon();
}

void Engine::Start(const std::shared_ptr<Group>& group, std::shared_ptr<Operation> operation) {
  const std::lock_guard lock(mutex_);
  operation->group_ = group.get();
  const std::string& failure =
      group->member->failure.empty() ? group->failure : group->member->failure;
  if (!failure.empty()) return Finish(*operation, failure);
  if (operation->point_to_point()) {
    group->transfers.push_back(std::move(operation));
  } else {
    group->collectives.push_back(std::move(operation));
  }
  if (!group->active) {
    group->active = true;
    active_.push_back(group);
  }
  Drive();
  if (polled_ && waiting_ == 0 && !active_.empty()) work_.notify_one();
}

void Engine::Wait(Operation& operation) {
  if (!operation.Done()) {
    std::unique_lock lock(mutex_);
    const Clock::time_point deadline = Clock::now() + options_.timeout;
    if (polled_) {
      WaitPolled(lock, operation, deadline);
    } else {
      const auto done = [&] { return operation.Done(); };
      if (!operation.group_->member->changed.wait_until(lock, deadline, done)) {
        Fail(*operation.group_, TimedOut(operation));
      }
    }
  }
  if (!operation.error_.empty()) C10_THROW_ERROR(DistError, operation.error_);
}

void Engine::WaitPolled(std::unique_lock<std::mutex>& lock, Operation& operation,
                        Clock::time_point deadline) {
  ++waiting_;
  for (int idle = 0; !operation.Done();) {
    idle = Drive() ? 0 : idle + 1;
    if (operation.Done()) break;
    if (Clock::now() >= deadline) {
      Fail(*operation.group_, TimedOut(operation));
      break;
    }
    lock.unlock();
    Pause(idle);
    lock.lock();
  }
  --waiting_;
  if (waiting_ == 0 && !active_.empty()) work_.notify_one();
}

void Engine::RunThread() {
  std::unique_lock lock(mutex_);
  for (int idle = 0; !stop_;) {
    if (active_.empty() || waiting_ > 0) {
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
  for (bool changed = true; changed; any |= changed) {
    changed = false;
    if (polled_ && !active_.empty()) members_.front()->transport->Poll();
    for (size_t i = 0; i < active_.size(); ++i) changed |= Step(*active_[i]);
  }
  std::erase_if(active_, [](const std::shared_ptr<Group>& group) {
    group->active = !group->collectives.empty() || !group->transfers.empty();
    return !group->active;
  });
  return any;
}

bool Engine::Step(Group& group) {
  bool changed = false;
  for (auto next = group.transfers.begin(); next != group.transfers.end();) {
    const auto transfer = next++;
    bool finished = false;
    changed |= Advance(group, **transfer, finished);
    if (!group.failure.empty()) return true;
    if (finished) group.transfers.erase(transfer);
  }
  bool finished = true;
  while (finished && !group.collectives.empty()) {
    finished = false;
    changed |= Advance(group, *group.collectives.front(), finished);
    if (!group.failure.empty()) return true;
    if (finished) group.collectives.pop_front();
  }
  if (changed) LeaveIfDone(group);
  return changed;
}

bool Engine::Advance(Group& group, Operation& operation, bool& finished) {
  bool changed = false;
  while (!finished) {
    if (operation.tally_.broken > 0) {
      Fail(group, Broken(operation));
      return true;
    }
    if (operation.tally_.under_way > 0) break;
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
    finished = *next == Operation::Next::kDone;
  }
  if (finished) Finish(operation, {});
  return changed;
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
  for (std::shared_ptr<Operation>& operation : group.collectives) end(operation);
  for (std::shared_ptr<Operation>& operation : group.transfers) end(operation);
  group.collectives.clear();
  group.transfers.clear();
  abandoned_ = true;
  group.member->transport->Abandon();
  LeaveIfDone(group);
}

void Engine::LeaveIfDone(Group& group) {
  if (!group.closing || group.left) return;
  if (!group.collectives.empty() || !group.transfers.empty()) return;
  group.left = true;
  group.member->transport->Leave(group.channel);
  group.member->transport->Leave(group.channel + 1);
}

std::string Engine::Broken(const Operation& operation) const {
  const Group& group = *operation.group_;
  const Transfer* first = nullptr;
  for (const Transfer& transfer : operation.transfers_) {
    if (transfer.state() == Transfer::State::kFailed) {
      return absl::StrCat("the ", operation.Describe(), " failed on rank ",
                          group.member->transport->rank(), ", group ", group.name,
                          ", in its exchange with rank ", transfer.peer, ": ", transfer.error());
    }
    if (transfer.state() != Transfer::State::kLeft) continue;
    if (first == nullptr || transfer.left_order() < first->left_order()) first = &transfer;
  }
  OSLER_CHECK(first != nullptr);
  return absl::StrCat("rank ", first->peer, " left before the ", operation.Describe(),
                      " that rank ", group.member->transport->rank(), " waited in, group ",
                      group.name, ": see rank ", first->peer, "'s own error");
}

std::string Engine::TimedOut(const Operation& operation) const {
  const Group& group = *operation.group_;
  // What it waits for is what the group's first collective waits for.
  const Operation& head = operation.point_to_point() ? operation : *group.collectives.front();
  std::vector<int> missing;
  for (const Transfer& transfer : head.transfers_) {
    if (transfer.state() == Transfer::State::kUnderWay) missing.push_back(transfer.peer);
  }
  std::sort(missing.begin(), missing.end());
  missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
  return absl::StrCat("the ", head.Describe(), " on rank ", group.member->transport->rank(),
                      ", group ", group.name, ", did not end within ", options_.timeout.count(),
                      " ms: it waits for rank", missing.size() == 1 ? " " : "s ",
                      absl::StrJoin(missing, ", "),
                      "; a rank may hang, or be in another collective: see the other ranks' logs");
}

}  // namespace osler
