#include "parallel/tcp/tcp_transport.h"

#include <poll.h>
#include <sys/socket.h>

#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "parallel/tcp/peer.h"

namespace osler::tcp {
namespace {

constexpr double kFarewell_s = 1;  // for a peer to close too

class TcpTransport : public Transport {
 public:
  TcpTransport(int rank, std::vector<Fd> peers) : rank_(rank), peers_(peers.size()) {
    for (size_t r = 0; r < peers.size(); ++r) {
      if (static_cast<int>(r) == rank) continue;
      peers_[r].emplace(static_cast<int>(r), std::move(peers[r]));
    }
  }
  // A socket that is closed with something unread in it resets the connection, and the peer would
  // lose what it has not read either: close when the peer has finished sending too.
  ~TcpTransport() override {
    if (abandoned_) return;
    for (const auto& peer : peers_) {
      if (peer.has_value()) shutdown(peer->fd().get(), SHUT_WR);
    }
    const auto deadline = Clock::now() + Seconds(kFarewell_s);
    for (const auto& peer : peers_) {
      if (peer.has_value() && !peer->broken()) DrainUntilClosed(peer->fd(), deadline);
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(peers_.size()); }
  std::string name() const override { return "tcp"; }

  void Send(Transfer& transfer) override { At(transfer.peer).Send(transfer); }
  void Receive(Transfer& transfer) override { At(transfer.peer).Receive(transfer); }

  void Poll() override {
    polls_.clear();
    for (const auto& peer : peers_) {
      const bool alive = peer.has_value() && !peer->broken();
      const int events = POLLIN | (alive && peer->wants_write() ? POLLOUT : 0);
      polls_.push_back({alive ? peer->fd().get() : -1, static_cast<short>(events), 0});
    }
    if (poll(polls_.data(), polls_.size(), 0) <= 0) return;
    for (size_t r = 0; r < polls_.size(); ++r) {
      if ((polls_[r].revents & POLLOUT) != 0) peers_[r]->Write();
      if ((polls_[r].revents & ~POLLOUT) != 0) peers_[r]->Read();
    }
  }

  void Abandon() override { abandoned_ = true; }

 private:
  Peer& At(int rank) {
    OSLER_CHECK(rank != rank_);
    return *peers_[static_cast<size_t>(rank)];
  }

  static void DrainUntilClosed(const Fd& fd, Clock::time_point deadline) {
    char bytes[4096];
    while (WaitFor(fd.get(), POLLIN, deadline)) {
      if (recv(fd.get(), bytes, sizeof bytes, MSG_DONTWAIT) <= 0) return;
    }
  }

  const int rank_;
  std::vector<std::optional<Peer>> peers_;  // none for this rank
  std::vector<pollfd> polls_;
  bool abandoned_ = false;
};

}  // namespace

std::unique_ptr<Transport> MakeTcpTransport(int rank, std::vector<Fd> peers) {
  return std::make_unique<TcpTransport>(rank, std::move(peers));
}

}  // namespace osler::tcp
