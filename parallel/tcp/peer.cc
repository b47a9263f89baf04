#include "parallel/tcp/peer.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace osler::tcp {
namespace {

constexpr size_t kEagerBytes = size_t{64} << 10;
constexpr size_t kPieceBytes = size_t{256} << 10;
constexpr size_t kStagingBytes = size_t{64} << 10;
constexpr size_t kAtOnce = size_t{4} << 20;  // then other peers have their turn

bool WouldBlock(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

Peer::Peer(int rank, Fd fd) : rank_(rank), fd_(std::move(fd)), staging_(kStagingBytes) {}

void Peer::Send(Transfer& transfer) {
  if (broken()) return transfer.Fail(error_);
  out_[transfer.channel].queue.push_back(&transfer);
  Write();
}

void Peer::Receive(Transfer& transfer) {
  Incoming& in = in_[transfer.channel];
  in.waiting.push_back(&transfer);
  Match(transfer.channel, in);
  if (!broken()) return Write();
  for (Transfer* lost : std::exchange(in.waiting, {})) lost->Fail(error_);
}

bool Peer::wants_write() const {
  return piece_ != nullptr || !notes_.empty() ||
         std::any_of(out_.begin(), out_.end(), [&](const auto& one) { return Ready(one.second); });
}

// Whether the channel has a piece, or an announcement, to send now.
bool Peer::Ready(const Outgoing& out) const {
  return !out.queue.empty() &&
         (out.queue.front()->bytes <= kEagerBytes || !out.announced || out.cleared);
}

// Chooses what is written next, channel after channel; false if there is nothing.
bool Peer::NextPiece() {
  auto at = out_.upper_bound(last_channel_);
  for (size_t i = 0; i < out_.size(); ++i, ++at) {
    if (at == out_.end()) at = out_.begin();
    Outgoing& out = at->second;
    if (!Ready(out)) continue;
    last_channel_ = at->first;
    Transfer& transfer = *out.queue.front();
    const auto message = static_cast<uint32_t>(transfer.bytes);
    if (transfer.bytes > kEagerBytes && !out.announced) {
      const Header note{kAnnounce, at->first, message, 0};
      notes_.append(reinterpret_cast<const char*>(&note), sizeof note);
      out.announced = true;
      return true;
    }
    piece_header_ = {kPiece, at->first, message,
                     static_cast<uint32_t>(std::min(kPieceBytes, transfer.bytes - out.sent))};
    piece_ = &transfer;
    piece_written_ = 0;
    return true;
  }
  return false;
}

void Peer::PieceSent() {
  Outgoing& out = out_[piece_header_.channel];
  out.sent += piece_header_.piece;
  Transfer* transfer = std::exchange(piece_, nullptr);
  if (out.sent < transfer->bytes) return;
  out.queue.pop_front();
  out.sent = 0;
  out.announced = out.cleared = false;
  transfer->Done();
}

// Writes a part of the piece or of the notes; false when the socket takes no more.
bool Peer::WriteSome() {
  iovec parts[2];
  size_t count = 0;
  if (piece_ == nullptr) {
    parts[count++] = {notes_.data(), notes_.size()};
  } else {
    const size_t header = std::min(piece_written_, sizeof(Header));
    const size_t body = piece_written_ - header;
    parts[count++] = {reinterpret_cast<char*>(&piece_header_) + header, sizeof(Header) - header};
    parts[count++] = {piece_->data + out_[piece_header_.channel].sent + body,
                      piece_header_.piece - body};
  }
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  const ssize_t n = sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  if (n < 0 && WouldBlock(errno)) return false;
  if (n < 0) {
    Break(std::strerror(errno));
    return false;
  }
  if (piece_ == nullptr) {
    notes_.erase(0, static_cast<size_t>(n));
  } else {
    piece_written_ += static_cast<size_t>(n);
    if (piece_written_ == sizeof(Header) + piece_header_.piece) PieceSent();
  }
  return true;
}

void Peer::Write() {
  for (size_t pieces = 0; !broken() && pieces < kAtOnce / kPieceBytes; ++pieces) {
    if (piece_ == nullptr && notes_.empty() && !NextPiece()) return;
    if (!WriteSome()) return;
  }
}

void Peer::Read() {
  for (size_t total = 0; !broken() && total < kAtOnce;) {
    const bool direct = piece_left_ >= kStagingBytes / 4;
    char* to = direct ? target_ : staging_.data();
    const ssize_t n = recv(fd_.get(), to, direct ? piece_left_ : staging_.size(), 0);
    if (n < 0 && WouldBlock(errno)) return;
    if (n <= 0) return Break(n == 0 ? "it was closed" : std::strerror(errno));
    total += static_cast<size_t>(n);
    if (direct) {
      BytesCame(static_cast<size_t>(n));
      continue;
    }
    const char* begin = staging_.data();
    while (begin < staging_.data() + n && !broken()) Consume(begin, staging_.data() + n);
  }
}

// Takes the bytes of the current header or piece.
void Peer::Consume(const char*& begin, const char* end) {
  const auto here = static_cast<size_t>(end - begin);
  if (piece_left_ > 0) {
    const size_t n = std::min(here, piece_left_);
    std::memcpy(target_, begin, n);
    begin += n;
    return BytesCame(n);
  }
  const size_t n = std::min(here, sizeof(Header) - header_read_);
  std::memcpy(reinterpret_cast<char*>(&header_) + header_read_, begin, n);
  begin += n;
  header_read_ += n;
  if (header_read_ < sizeof(Header)) return;
  header_read_ = 0;
  HeaderCame();
}

void Peer::HeaderCame() {
  const bool sized = header_.message <= kMaxMessageBytes && header_.piece <= kPieceBytes &&
                     header_.piece <= header_.message;
  if (!sized || header_.kind < kPiece || header_.kind > kClear) {
    return Break("it sent something else than messages");
  }
  if (header_.kind == kClear) {
    out_[header_.channel].cleared = true;
    return Write();
  }
  Incoming& in = in_[header_.channel];
  if (header_.kind == kAnnounce) {
    in.arrived.push_back({header_.message, true});
    return Match(header_.channel, in);
  }
  if (in.current == nullptr && in.arrived.empty() && !in.waiting.empty() &&
      in.waiting.front()->bytes >= header_.message) {
    in.current = in.waiting.front();
    in.waiting.pop_front();
    in.received = 0;
  }
  in_arrived_ = in.current == nullptr;
  if (in_arrived_) {
    if (header_.piece != header_.message || header_.message > kEagerBytes) {
      return Break("it sent a large message unasked");
    }
    in.arrived.push_back({header_.message, false, std::string(header_.message, '\0')});
    target_ = in.arrived.back().data.data();
  } else {
    if (in.received + header_.piece > in.current->bytes) return Break("it sent too much");
    target_ = in.current->data + in.received;
  }
  piece_left_ = header_.piece;
  if (piece_left_ == 0) PieceCame();
}

void Peer::BytesCame(size_t count) {
  piece_left_ -= count;
  target_ += count;
  if (piece_left_ == 0) PieceCame();
}

void Peer::PieceCame() {
  target_ = nullptr;
  Incoming& in = in_[header_.channel];
  if (in_arrived_) {
    in.arrived.back().complete = true;
    return Match(header_.channel, in);
  }
  in.received += header_.piece;
  if (in.received < header_.message) return;
  Complete(*std::exchange(in.current, nullptr), header_.message);
  Match(header_.channel, in);
}

// Hands what has arrived to the receives that wait for it, in order.
void Peer::Match(uint32_t channel, Incoming& in) {
  while (in.current == nullptr && !in.waiting.empty() && !in.arrived.empty()) {
    Transfer& transfer = *in.waiting.front();
    Arrived& arrived = in.arrived.front();
    if (!arrived.announced && !arrived.complete) return;
    in.waiting.pop_front();
    if (arrived.bytes > transfer.bytes) {
      transfer.Fail(absl::StrCat("it sent ", arrived.bytes, " bytes where ", transfer.bytes,
                                 " were expected"));
    } else if (arrived.announced && broken()) {
      transfer.Fail(error_);
    } else if (arrived.announced) {
      in.current = &transfer;
      in.received = 0;
      const Header note{kClear, channel, arrived.bytes, 0};
      notes_.append(reinterpret_cast<const char*>(&note), sizeof note);
    } else {
      if (arrived.bytes > 0) std::memcpy(transfer.data, arrived.data.data(), arrived.bytes);
      Complete(transfer, arrived.bytes);
    }
    in.arrived.pop_front();
  }
}

void Peer::Complete(Transfer& transfer, size_t bytes) {
  transfer.bytes = bytes;
  transfer.Done();
}

void Peer::Break(const std::string& why) {
  error_ = absl::StrCat("the connection to rank ", rank_, " broke: ", why);
  piece_ = nullptr;
  target_ = nullptr;
  piece_left_ = 0;
  for (auto& [channel, out] : out_) {
    for (Transfer* transfer : std::exchange(out.queue, {})) transfer->Fail(error_);
  }
  for (auto& [channel, in] : in_) {
    if (in.current != nullptr) std::exchange(in.current, nullptr)->Fail(error_);
    for (Transfer* transfer : std::exchange(in.waiting, {})) transfer->Fail(error_);
  }
}

}  // namespace osler::tcp
