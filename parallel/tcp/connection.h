// One end of a framed, non-blocking connection: nothing here ever waits. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/tcp/frame.h"
#include "parallel/tcp/socket.h"

namespace osler::tcp {

class Connection {
 public:
  // `longest_payload` is the most that the other end may send in one frame.
  Connection(Fd fd, size_t longest_payload) : fd_(std::move(fd)), reader_(longest_payload) {}

  const Fd& fd() const { return fd_; }
  // The socket alone, for a peer that has sent nothing more.
  Fd Release() && { return std::move(fd_); }
  void set_longest_payload(size_t bytes) { reader_.set_limit(bytes); }

  // Queues a frame; Flush writes as much of the queue as the socket takes.
  void Send(uint16_t type, std::string_view payload = {}) { AppendFrame(type, payload, unsent_); }
  absl::Status Flush();
  bool has_unsent() const { return sent_ < unsent_.size(); }
  // Nothing more will be sent; the other end reads to the end and then sees the connection closed.
  void FinishSending();

  // Takes what has arrived. An error says that the connection has ended; frames that came before
  // are still in Next().
  absl::Status Receive();
  absl::StatusOr<std::optional<Frame>> Next() { return reader_.Next(); }

 private:
  Fd fd_;
  FrameReader reader_;
  std::string unsent_;
  size_t sent_ = 0;  // bytes of unsent_ that are on their way
};

}  // namespace osler::tcp
