#include "parallel/tcp/full_mesh.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler::tcp {
namespace {

constexpr int kTick_ms = 50;

}  // namespace

absl::StatusOr<std::vector<Fd>> ConnectFullMesh(int rank, const std::vector<Endpoint>& listeners,
                                                Fd listener, const std::string& secret,
                                                Clock::time_point deadline) {
  const int size = static_cast<int>(listeners.size());
  std::vector<Fd> peers(listeners.size());
  for (int r = 0; r < rank; ++r) {
    absl::StatusOr<Connection> connection =
        Dial({listeners[static_cast<size_t>(r)]}, secret, {Purpose::kData, rank, size}, deadline);
    if (!connection.ok()) {
      return CommunicationError(absl::StrCat("rank ", rank, " has no data connection to rank ", r,
                                             ": ", connection.status().message()));
    }
    peers[static_cast<size_t>(r)] = std::move(*connection).Release();
  }
  Acceptor acceptor(std::move(listener), {absl::StrCat("the data port of rank ", rank), secret},
                    [&](const Hello& hello) -> absl::Status {
                      if (hello.purpose == Purpose::kData && hello.world_size == size &&
                          hello.rank > rank && hello.rank < size &&
                          !peers[static_cast<size_t>(hello.rank)].valid()) {
                        return absl::OkStatus();
                      }
                      return DeviceError("it is no rank that belongs here");
                    });
  while (true) {
    const auto missing = std::find_if(peers.begin() + rank + 1, peers.end(),
                                      [](const Fd& peer) { return !peer.valid(); });
    if (missing == peers.end()) return peers;
    if (Clock::now() >= deadline) {
      return CommunicationError(absl::StrCat("rank ", missing - peers.begin(),
                                             " made no data connection to rank ", rank));
    }
    std::vector<pollfd> polls;
    acceptor.AddPolls(polls);
    poll(polls.data(), polls.size(), kTick_ms);
    for (Guest& guest : acceptor.Advance()) {
      peers[static_cast<size_t>(guest.hello.rank)] = std::move(guest.connection).Release();
    }
  }
}

}  // namespace osler::tcp
