// How bytes travel between ranks: the little that a CPU back-end has to bring. The collectives are
// made of it in parallel/message_communicator.h, once for all back-ends.
//
// Messages flow in channels. A channel between two ranks is two independent queues of messages, one
// for each direction: the k-th message that a rank sends to a peer in a channel is the one that the
// peer's k-th receive from it in that channel takes, whatever happens in other channels and with
// other peers. A message is never longer than kMaxMessageBytes, may be empty, and a receive never
// offers less room than the message needs, unless the ranks disagree on the collective: then the
// transfer fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace osler {

inline constexpr size_t kMaxMessageBytes = size_t{1} << 30;

// One message under way. Its owner keeps it and its memory alive and unmoved until it is finished.
class Transfer {
 public:
  enum class State { kUnderWay, kDone, kLeft, kFailed };
  // What the owner of many transfers needs to know of them.
  struct Tally {
    int under_way = 0;
    int broken = 0;
  };

  Transfer(Tally& tally, int peer, uint32_t channel, void* data, size_t bytes)
      : peer(peer), channel(channel), data(static_cast<char*>(data)), bytes(bytes), tally_(&tally) {
    ++tally_->under_way;
  }
  Transfer(const Transfer&) = delete;

  const int peer;  // world rank of the other end
  const uint32_t channel;
  char* const data;
  size_t bytes;  // of the message; a receive: the room for it, and when it is done what came

  // The transport calls one of these once, and leaves transfer and memory alone afterwards.
  void Done() { Finish(State::kDone); }
  // The peer has left the channel (Transport::Leave) before this message. `order` tells who of
  // several left first.
  void Left(int64_t order) {
    left_order_ = order;
    Finish(State::kLeft);
  }
  void Fail(std::string why) {
    error_ = std::move(why);
    Finish(State::kFailed);
  }

  State state() const { return state_; }
  int64_t left_order() const { return left_order_; }
  const std::string& error() const { return error_; }

 private:
  void Finish(State state) {
    state_ = state;
    --tally_->under_way;
    tally_->broken += state != State::kDone;
  }

  Tally* tally_;
  State state_ = State::kUnderWay;
  int64_t left_order_ = 0;
  std::string error_;
};

// One rank's end. Calls come one at a time, under one lock, from changing threads. None may block:
// Send and Receive start a transfer, which may finish within the call, Poll moves all of them on.
class Transport {
 public:
  virtual ~Transport() = default;  // transfers under way are forgotten, never finished afterwards
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string name() const = 0;  // the communicators' backend()

  virtual void Send(Transfer& transfer) = 0;
  virtual void Receive(Transfer& transfer) = 0;

  // Whether transfers need Poll to move on. If not, each finishes within the call that made it
  // possible: its own start, or the peer's.
  virtual bool polled() const { return true; }
  // Called again and again while transfers are under way.
  virtual void Poll() {}

  // This rank sends no more in the channel. Receives that wait for it there, now or later, end as
  // Left once the messages sent before are used up. Back-ends whose launcher or control plane
  // speaks of ranks that die need not do anything.
  virtual void Leave(uint32_t /*channel*/) {}
  // The rank is leaving after a failure, and will not be waited for: no orderly shutdown.
  virtual void Abandon() {}
};

}  // namespace osler
