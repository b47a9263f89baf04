// One rank's traffic with one other over a socket: the queues of every channel, both ways. Nothing
// here waits. Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "parallel/tcp/socket.h"
#include "parallel/transport.h"

namespace osler::tcp {

class Peer {
 public:
  Peer(int rank, Fd fd);

  void Send(Transfer& transfer);
  void Receive(Transfer& transfer);
  // Moves on what the socket allows now.
  void Read();
  void Write();
  bool wants_write() const;
  bool broken() const { return !error_.empty(); }
  const Fd& fd() const { return fd_; }

 private:
  enum Kind : uint32_t { kPiece = 0x4f534c31, kAnnounce, kClear };
  struct Header {
    uint32_t kind = 0, channel = 0, message = 0, piece = 0;
  };
  static_assert(sizeof(Header) == 16);

  struct Outgoing {
    std::deque<Transfer*> queue;  // the first is under way
    size_t sent = 0;              // of the first
    bool announced = false, cleared = false;
  };
  // A message that came before its receive.
  struct Arrived {
    uint32_t bytes = 0;
    bool announced = false;  // only its size has come
    std::string data = {};
    bool complete = false;
  };
  struct Incoming {
    std::deque<Transfer*> waiting;
    std::deque<Arrived> arrived;
    Transfer* current = nullptr;  // receives straight into its memory
    size_t received = 0;          // of the current one
  };

  bool Ready(const Outgoing& out) const;
  bool NextPiece();
  void PieceSent();
  bool WriteSome();

  void Consume(const char*& begin, const char* end);
  void HeaderCame();
  void BytesCame(size_t count);
  void PieceCame();
  void Match(uint32_t channel, Incoming& in);
  void Complete(Transfer& transfer, size_t bytes);
  void Break(const std::string& why);

  const int rank_;
  Fd fd_;
  std::string error_;

  std::map<uint32_t, Outgoing> out_;
  uint32_t last_channel_ = 0;  // whose turn it was
  std::string notes_;          // announcements and clearances to send
  Header piece_header_;        // of the piece being written
  Transfer* piece_ = nullptr;
  size_t piece_written_ = 0;  // header included

  std::map<uint32_t, Incoming> in_;
  std::vector<char> staging_;
  Header header_;  // of the piece being read
  size_t header_read_ = 0;
  size_t piece_left_ = 0;    // bytes of it to come
  char* target_ = nullptr;   // where they go
  bool in_arrived_ = false;  // into the channel's last arrived message
};

}  // namespace osler::tcp
