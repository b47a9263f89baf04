#include "parallel/local/local_communicator.h"

#include <cstring>
#include <deque>
#include <map>
#include <utility>

#include "base/check.h"
#include "parallel/message_communicator.h"
#include "parallel/transport.h"

namespace osler {
namespace {

// Where sends and receives of all ranks meet: whichever comes second copies the bytes. Guarded by
// the lock of the engine that the ranks share.
class Meeting {
 public:
  explicit Meeting(int size) : size_(size), streams_(static_cast<size_t>(size * size)) {}
  int size() const { return size_; }

  void Send(int from, Transfer& send) {
    Stream& stream = streams_[Index(from, send.peer)][send.channel];
    if (stream.receives.empty()) {
      stream.sends.push_back(&send);
    } else {
      Move(send, *stream.receives.front());
      stream.receives.pop_front();
    }
  }

  void Receive(int to, Transfer& receive) {
    Stream& stream = streams_[Index(receive.peer, to)][receive.channel];
    if (!stream.sends.empty()) {
      Move(*stream.sends.front(), receive);
      stream.sends.pop_front();
    } else if (stream.left > 0) {
      receive.Left(stream.left);
    } else {
      stream.receives.push_back(&receive);
    }
  }

  void Leave(int rank, uint32_t channel) {
    ++leaves_;
    for (int to = 0; to < size_; ++to) {
      Stream& stream = streams_[Index(rank, to)][channel];
      stream.left = leaves_;
      for (Transfer* receive : stream.receives) receive->Left(leaves_);
      stream.receives.clear();
    }
  }

 private:
  // One direction of a channel between two ranks. At most one of the queues holds anything.
  struct Stream {
    std::deque<Transfer*> sends, receives;
    int64_t left = 0;  // which of all leaves ended it; 0: none
  };

  size_t Index(int from, int to) const { return static_cast<size_t>(from * size_ + to); }

  static void Move(Transfer& send, Transfer& receive) {
    if (send.bytes > receive.bytes) {
      receive.Fail("a longer message came than was expected");
      return send.Done();
    }
    if (send.bytes > 0) std::memcpy(receive.data, send.data, send.bytes);
    receive.bytes = send.bytes;
    receive.Done();
    send.Done();
  }

  const int size_;
  std::vector<std::map<uint32_t, Stream>> streams_;
  int64_t leaves_ = 0;
};

class LocalTransport : public Transport {
 public:
  LocalTransport(std::shared_ptr<Meeting> meeting, int rank)
      : meeting_(std::move(meeting)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return meeting_->size(); }
  std::string name() const override { return "local"; }
  bool polled() const override { return false; }
  void Send(Transfer& transfer) override { meeting_->Send(rank_, transfer); }
  void Receive(Transfer& transfer) override { meeting_->Receive(rank_, transfer); }
  void Leave(uint32_t channel) override { meeting_->Leave(rank_, channel); }

 private:
  const std::shared_ptr<Meeting> meeting_;
  const int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeLocalGroup(int size,
                                                          const CommunicatorOptions& options) {
  OSLER_CHECK(size >= 1);
  auto meeting = std::make_shared<Meeting>(size);
  std::vector<std::unique_ptr<Transport>> transports;
  for (int r = 0; r < size; ++r) transports.push_back(std::make_unique<LocalTransport>(meeting, r));
  return MakeMessageWorlds(std::move(transports), options);
}

}  // namespace osler
