#include "parallel/tcp/connection.h"

#include <errno.h>
#include <sys/socket.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace osler::tcp {
namespace {

constexpr size_t kReadBytes = size_t{64} << 10;
constexpr int kReadsAtOnce = 16;  // one busy peer must not keep its reader from the others

bool WouldBlock(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

absl::Status Connection::Flush() {
  while (has_unsent()) {
    const ssize_t n = send(fd_.get(), unsent_.data() + sent_, unsent_.size() - sent_, MSG_NOSIGNAL);
    if (n < 0 && WouldBlock(errno)) return absl::OkStatus();
    if (n < 0) return DeviceError(absl::StrCat("sending failed: ", std::strerror(errno)));
    sent_ += static_cast<size_t>(n);
  }
  unsent_.clear();
  sent_ = 0;
  return absl::OkStatus();
}

void Connection::FinishSending() { shutdown(fd_.get(), SHUT_WR); }

absl::Status Connection::Receive() {
  char bytes[kReadBytes];
  for (int i = 0; i < kReadsAtOnce; ++i) {
    const ssize_t n = recv(fd_.get(), bytes, sizeof bytes, 0);
    if (n == 0) return DeviceError("the connection was closed");
    if (n < 0 && WouldBlock(errno)) return absl::OkStatus();
    if (n < 0) return DeviceError(absl::StrCat("the connection broke: ", std::strerror(errno)));
    reader_.Append({bytes, static_cast<size_t>(n)});
    if (static_cast<size_t>(n) < sizeof bytes) return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace osler::tcp
