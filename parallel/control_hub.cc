#include "parallel/control_hub.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

using tcp::Seconds;

constexpr double kTick_s = 0.1;
constexpr double kClosing_s = 0.5;  // for the ranks to read the last words
constexpr size_t kMissingNamed = 8;

// The process's signals are for its main thread.
void BlockSignals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace

ControlHub::ControlHub(tcp::Fd listener, tcp::Fd first, int world_size, const std::string& secret,
                       const ControlTimes& times)
    : world_size_(world_size),
      times_(times),
      acceptor_(std::move(listener), {"the control port of rank 0", secret},
                [this](const tcp::Hello& hello) { return Admit(hello); }),
      seats_(static_cast<size_t>(world_size)),
      began_(Clock::now()),
      looked_(began_),
      beat_(began_) {
  Seated(0, tcp::Connection(std::move(first), kLongestControlPayload));
  thread_ = std::thread([this] { Run(); });
}

ControlHub::~ControlHub() { thread_.join(); }

void ControlHub::Run() {
  BlockSignals();
  while (!closing_.has_value() || (!AllHeard() && Clock::now() - *closing_ < Seconds(kClosing_s))) {
    Wait();
    for (tcp::Guest& guest : acceptor_.Advance()) {
      Seated(guest.hello.rank, std::move(guest.connection));
    }
    for (int r = 0; r < world_size_; ++r) Listen(r);
    if (!closing_.has_value()) Judge();
    for (int r = 0; r < world_size_; ++r) {
      auto& connection = seats_[static_cast<size_t>(r)].connection;
      if (!connection.has_value()) continue;
      if (const absl::Status sent = connection->Flush(); !sent.ok()) Lost(r, sent);
    }
  }
  finished_ = true;
}

// Until something arrives, at most a tick.
void ControlHub::Wait() {
  std::vector<pollfd> polls;
  acceptor_.AddPolls(polls);
  for (const Seat& seat : seats_) {
    if (!seat.connection.has_value()) continue;
    const int events = POLLIN | (seat.connection->has_unsent() ? POLLOUT : 0);
    polls.push_back({seat.connection->fd().get(), static_cast<short>(events), 0});
  }
  poll(polls.data(), polls.size(), static_cast<int>(kTick_s * 1e3));
}

absl::Status ControlHub::Admit(const tcp::Hello& hello) const {
  if (closing_.has_value()) {
    return DeviceError(verdict_.has_value() ? absl::StrCat("the run has ended: ", Text(*verdict_))
                                            : "the run has ended");
  }
  if (hello.purpose != tcp::Purpose::kControl) {
    return DeviceError("this is the control port, not one for data");
  }
  if (hello.world_size != world_size_) {
    return DeviceError(absl::StrCat("it belongs to a run of ", hello.world_size,
                                    " ranks, rank 0 to one of ", world_size_,
                                    ": start all ranks with the same world size"));
  }
  if (hello.rank < 0 || hello.rank >= world_size_) {
    return DeviceError(
        absl::StrCat("rank ", hello.rank, " does not exist in a run of ", world_size_, " ranks"));
  }
  if (seats_[static_cast<size_t>(hello.rank)].came) {
    return DeviceError(absl::StrCat("rank ", hello.rank,
                                    " is here already: two processes were given the same rank"));
  }
  return absl::OkStatus();
}

void ControlHub::Seated(int rank, tcp::Connection connection) {
  Seat& seat = seats_[static_cast<size_t>(rank)];
  if (seat.came) return;  // two of the same rank were admitted at once
  connection.set_longest_payload(kLongestControlPayload);
  seat.connection = std::move(connection);
  seat.heard = Clock::now();
  seat.came = true;
  ready_ = std::all_of(seats_.begin(), seats_.end(), [](const Seat& s) { return s.came; });
  if (ready_) Tell(kReady);
}

void ControlHub::Listen(int rank) {
  Seat& seat = seats_[static_cast<size_t>(rank)];
  if (!seat.connection.has_value()) return;
  const absl::Status received = seat.connection->Receive();
  while (seat.connection.has_value()) {
    const absl::StatusOr<std::optional<tcp::Frame>> frame = seat.connection->Next();
    if (!frame.ok()) return Lost(rank, frame.status());
    if (!frame->has_value()) break;
    seat.heard = Clock::now();
    if (!closing_.has_value()) Handle(rank, **frame);
  }
  if (!received.ok()) Lost(rank, received);
}

void ControlHub::Handle(int rank, const tcp::Frame& frame) {
  Seat& seat = seats_[static_cast<size_t>(rank)];
  Words words;
  switch (frame.type) {
    case kHeartbeat: return;
    case kExchange: return Collect(rank, frame);
    case kLastWords:
      if (Decode(frame.payload, words)) Condemn({rank, absl::StrCat("failed: ", words.message)});
      return;
    case kSuspicion:
      if (!Decode(frame.payload, words) || seat.suspicion.has_value()) return;
      seat.suspicion = words;
      seat.suspected = Clock::now();
      return;
    case kFarewell:
      if (Decode(frame.payload, words)) Leave(rank, words);
      return;
    default: Condemn({rank, absl::StrCat("sent an unknown control message ", frame.type)});
  }
}

void ControlHub::Leave(int rank, const Words& words) {
  Seat& seat = seats_[static_cast<size_t>(rank)];
  seat.farewell = words;
  seat.left = Clock::now();
  if (rank != 0) {
    seat.connection.reset();
    return;
  }
  Tell(kFarewell, Encode(words));  // the hub goes with its rank
  Close();
}

void ControlHub::Lost(int rank, const absl::Status& how) {
  Seat& seat = seats_[static_cast<size_t>(rank)];
  seat.connection.reset();
  if (seat.farewell.has_value() || closing_.has_value()) return;
  if (seat.suspicion.has_value()) {
    Condemn({rank, absl::StrCat("lost communication: ", seat.suspicion->message)});
    return;
  }
  Condemn({rank, absl::StrCat("died without a word (killed, crashed or out of memory): ",
                              how.message())});
}

void ControlHub::Collect(int rank, const tcp::Frame& frame) {
  tcp::FieldReader fields(frame.payload);
  const std::string name = fields.Text();
  auto one = std::find_if(exchanges_.begin(), exchanges_.end(),
                          [&](const auto& other) { return other.first == name; });
  if (one == exchanges_.end()) {
    exchanges_.emplace_back(name, seats_.size());
    one = std::prev(exchanges_.end());
  }
  auto& blobs = one->second;
  blobs[static_cast<size_t>(rank)] = fields.Text();
  if (!std::all_of(blobs.begin(), blobs.end(), [](const auto& b) { return b.has_value(); })) return;
  tcp::FieldWriter all;
  all.Text(name);
  for (const auto& blob : blobs) all.Text(*blob);
  Tell(kExchanged, all.bytes());
  exchanges_.erase(one);
}

void ControlHub::Judge() {
  const auto now = Clock::now();
  // This rank was stopped itself: what the others said meanwhile has only just been read.
  if (now - looked_ > Seconds(times_.silence_s / 2)) {
    for (Seat& seat : seats_) seat.heard = std::max(seat.heard, now);
  }
  looked_ = now;
  if (now - beat_ > Seconds(times_.heartbeat_s)) {
    beat_ = now;
    Tell(kHeartbeat);
  }
  if (!ready_ && now - began_ > Seconds(times_.connect_s)) return JudgeAbsent();
  for (int r = 0; r < world_size_ && !closing_.has_value(); ++r) JudgeSeat(r, now);
}

void ControlHub::JudgeSeat(int rank, Clock::time_point now) {
  const Seat& seat = seats_[static_cast<size_t>(rank)];
  if (seat.connection.has_value() && now - seat.heard > Seconds(times_.silence_s)) {
    Condemn({rank, absl::StrFormat("was silent for %.1f s: it is stopped, or cut off",
                                   std::chrono::duration<double>(now - seat.heard).count())});
  } else if (seat.suspicion.has_value() && now - seat.suspected > Seconds(times_.hold_s)) {
    Condemn({rank, absl::StrCat("lost communication: ", seat.suspicion->message)});
  } else if (seat.farewell.has_value() && seat.farewell->exit_code != 0 &&
             now - seat.left > Seconds(times_.linger_s)) {
    Condemn({rank, absl::StrCat("left with exit code ", seat.farewell->exit_code, ": ",
                                seat.farewell->message)});
  }
}

void ControlHub::JudgeAbsent() {
  std::vector<int> missing;
  for (int r = 0; r < world_size_; ++r) {
    if (!seats_[static_cast<size_t>(r)].came) missing.push_back(r);
  }
  const int first = missing.front();
  std::string who = absl::StrCat(missing.size(), " of ", world_size_, " ranks are missing");
  if (missing.size() > 1) {
    missing.resize(std::min(missing.size(), kMissingNamed));
    absl::StrAppend(&who, ", the first are ", absl::StrJoin(missing, ", "));
  }
  Condemn({first, absl::StrFormat("did not come within %g s (%s): see whether it was started, and "
                                  "with this rank 0's address and secret",
                                  times_.connect_s, who)});
}

void ControlHub::Condemn(const Blame& blame) {
  if (verdict_.has_value() || closing_.has_value()) return;
  verdict_ = blame;
  Tell(kVerdict, Encode(blame));
  Close();
}

void ControlHub::Tell(uint16_t type, std::string_view payload) {
  for (Seat& seat : seats_) {
    if (seat.connection.has_value()) seat.connection->Send(type, payload);
  }
}

// A connection closed with unread heartbeats in it would be reset and the last words lost: the
// ranks close theirs when they have read them.
void ControlHub::Close() {
  closing_ = Clock::now();
  for (Seat& seat : seats_) {
    if (!seat.connection.has_value()) continue;
    if (seat.connection->Flush().ok() && !seat.connection->has_unsent()) {
      seat.connection->FinishSending();
    }
  }
}

bool ControlHub::AllHeard() const {
  for (int r = 0; r < world_size_; ++r) {
    const bool blamed = verdict_.has_value() && verdict_->rank == r;
    if (!blamed && seats_[static_cast<size_t>(r)].connection.has_value()) return false;
  }
  return true;
}

}  // namespace osler
