// The centre of the control plane, on rank 0: one thread that hears every rank's heartbeat, hands
// round what ranks exchange, and decides once, for all, whom a failure is to be blamed on.
//
// A rank is to blame when its connection ends without a farewell, when nothing is heard of it for
// `silence_s`, when it says that it failed, or when it left with an error while others go on. A
// rank that reports a communication error is heard, but whoever broke the communication is sought
// for `hold_s` first: the messenger is not the culprit.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "parallel/control_message.h"
#include "parallel/tcp/handshake.h"

namespace osler {

class ControlHub {
 public:
  // Serves `world_size` ranks: those that come to `listener`, and rank 0 through `first`. The
  // thread runs until rank 0 has left, or a verdict has been told to every rank that still listens.
  ControlHub(tcp::Fd listener, tcp::Fd first, int world_size, const std::string& secret,
             const ControlTimes& times);
  ~ControlHub();  // waits for the thread

  // Whether all that was to be said has been said.
  bool finished() const { return finished_; }

 private:
  using Clock = tcp::Clock;
  struct Seat {
    std::optional<tcp::Connection> connection;
    Clock::time_point heard;
    bool came = false;
    std::optional<Words> farewell;  // of a rank that left in good order
    Clock::time_point left;
    std::optional<Words> suspicion;  // what it said of a communication error
    Clock::time_point suspected;
  };

  void Run();
  void Wait();
  absl::Status Admit(const tcp::Hello& hello) const;
  void Seated(int rank, tcp::Connection connection);
  void Listen(int rank);
  void Handle(int rank, const tcp::Frame& frame);
  void Lost(int rank, const absl::Status& how);
  void Judge();
  void JudgeSeat(int rank, Clock::time_point now);
  void JudgeAbsent();
  void Condemn(const Blame& blame);
  void Collect(int rank, const tcp::Frame& frame);
  void Leave(int rank, const Words& words);
  void Tell(uint16_t type, std::string_view payload = {});
  void Close();
  bool AllHeard() const;

  const int world_size_;
  const ControlTimes times_;
  tcp::Acceptor acceptor_;
  std::vector<Seat> seats_;
  std::vector<std::pair<std::string, std::vector<std::optional<std::string>>>> exchanges_;
  Clock::time_point began_, looked_, beat_;
  bool ready_ = false;  // all ranks have come
  std::optional<Blame> verdict_;
  std::optional<Clock::time_point> closing_;  // the last words to the ranks were sent then
  std::atomic<bool> finished_ = false;
  std::thread thread_;
};

}  // namespace osler
