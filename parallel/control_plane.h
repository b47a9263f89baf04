// One rank's end of the control plane: plain TCP beside MPI, NCCL or whatever moves tensors, so
// that it is alive when they are not. docs/faults.md says what is known when.
//
// Every rank holds a connection to the hub on rank 0 and a thread that speaks for it: heartbeats
// go on while the main thread computes or waits in a collective. The hub decides whom a failure is
// to be blamed on and tells every rank; that verdict is the first and only one. Rank 0's own death
// is known by its connection. A run of one rank has no threads, no sockets and no verdicts.
//
// Thread-safe, but one thread at a time may call Exchange, Leave and the destructor.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/control_message.h"
#include "parallel/tcp/socket.h"

namespace osler {

struct ControlSeat {
  int rank = 0, world_size = 1;
  std::string secret;  // shared by the run's ranks; may be empty (docs/faults.md)
  ControlTimes times;
};

class ControlPlane {
 public:
  // Of a run of one rank.
  static std::unique_ptr<ControlPlane> Alone();
  // Rank 0: the hub serves `listener`. Returns when all ranks have come; a device error names those
  // that did not within times.connect_s.
  static absl::StatusOr<std::unique_ptr<ControlPlane>> Lead(const ControlSeat& seat,
                                                            tcp::Fd listener);
  // Another rank: joins the hub at the first of `hub` that answers. Returns when all ranks have
  // come. Device errors name the address and what is wrong with it.
  static absl::StatusOr<std::unique_ptr<ControlPlane>> Join(const ControlSeat& seat,
                                                            const std::vector<tcp::Endpoint>& hub);
  // Leaves in good order if Leave was not called.
  ~ControlPlane();

  int rank() const;
  int world_size() const;
  // The addresses of the connection to the hub, both empty on rank 0: how this rank reaches rank 0
  // and by which of its own interfaces.
  const tcp::Endpoint& hub_end() const;
  const tcp::Endpoint& own_end() const;

  // Every rank brings a blob of at most 1 MiB and gets those of all, by rank. Collective: all ranks
  // call it with the same names in the same order. Device error after times.connect_s or a verdict.
  absl::StatusOr<std::vector<std::string>> Exchange(std::string_view name, std::string_view blob);

  // `handler` is called once, from the control thread, as soon as there is a verdict (at once if
  // there is one). Null takes it back, and waits for one that runs.
  void Watch(std::function<void(const Blame&)> handler);
  std::optional<Blame> verdict() const;

  // This rank goes. OK and errors that ranks agree on (config, data, checkpoint, stopped) are a
  // farewell: no one is blamed as long as the others leave too. A communication error
  // (IsCommunicationError) asks the hub for its cause; other device errors and bugs are last words,
  // told to all at once. For those, returns whom the failure is blamed on, within about a second.
  std::optional<Blame> Leave(const absl::Status& status);

  // On rank 0, where the hub lives: waits until the others have heard what it said last, at most
  // half a second. Before a process that failed ends itself.
  void WaitUntilTold() const;

 private:
  struct State;
  explicit ControlPlane(std::unique_ptr<State> state);
  static absl::StatusOr<std::unique_ptr<ControlPlane>> Start(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// OK on every rank if `text`, one setting a line, is the same on all; else the same config error on
// every rank, naming the first rank that differs from rank 0 and the first line that does.
// Collective. Costs one exchange of a digest when all is well.
absl::Status CheckSameOnAllRanks(ControlPlane& control, std::string_view what,
                                 const std::string& text);

}  // namespace osler
