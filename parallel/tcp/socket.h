// Plain TCP sockets, IPv4 and IPv6: names, listening, connecting with a deadline.
//
// Every socket made here is non-blocking, closed on exec, sends without delay (TCP_NODELAY) and
// keeps alive. Errors are device errors that name the address and the system's reason. Functions
// are thread-safe; a socket belongs to one thread at a time.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace osler::tcp {

using Clock = std::chrono::steady_clock;

inline Clock::duration Seconds(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// Owns a file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd();
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Where someone listens: a host name or numeric address, and a port of 1 to 65535.
struct Endpoint {
  std::string host;
  int port = 0;
};

// "host:port", "10.0.0.1:29500" or "[::1]:29500". Config error for anything else.
absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text);
std::string ToString(const Endpoint& endpoint);

// Whether `host` says by itself that only this machine can reach it: "localhost", 127.x.y.z, ::1.
bool IsLoopback(std::string_view host);

// Listens on `host`, on every interface if it is empty; port 0 takes any free one.
absl::StatusOr<Fd> Listen(const std::string& host, int port);

// The next connection that waits on a listener, or an invalid Fd when there is none.
absl::StatusOr<Fd> Accept(const Fd& listener);

// Tries each address of the endpoint's host once.
absl::StatusOr<Fd> Connect(const Endpoint& endpoint, Clock::time_point deadline);

// Waits for `events` of poll(2); false when the deadline came first.
bool WaitFor(int fd, short events, Clock::time_point deadline);

// Both ends' numeric addresses; empty if the socket is no longer connected.
Endpoint LocalEnd(const Fd& fd);
Endpoint RemoteEnd(const Fd& fd);

// This machine's host name and its numeric addresses other than loopback ones.
std::string HostName();
std::vector<std::string> InterfaceAddresses();

// A connected pair of non-blocking local sockets.
absl::StatusOr<std::pair<Fd, Fd>> SocketPair();

}  // namespace osler::tcp
