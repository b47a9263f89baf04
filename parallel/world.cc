#include "parallel/world.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/secret.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "parallel/message_communicator.h"
#include "parallel/mpi/mpi_communicator.h"
#include "parallel/small_values.h"
#include "parallel/tcp/agent_store.h"
#include "parallel/tcp/frame.h"
#include "parallel/tcp/full_mesh.h"
#include "parallel/tcp/tcp_transport.h"

namespace osler {
namespace {

using tcp::Clock;
using tcp::Seconds;

constexpr size_t kSecretBytes = 32;

std::string SecretOfEnvironment() {
  const char* secret = std::getenv("OSLER_RUN_SECRET");
  return secret == nullptr ? "" : secret;
}

// What rank 0 tells the others over MPI or torchrun's store: how to reach its control port.
struct Invitation {
  std::string host_name;
  std::vector<std::string> addresses;
  int port = 0;
  std::string secret;
};

std::string Encode(const Invitation& invitation) {
  tcp::FieldWriter fields;
  fields.Text(invitation.host_name).Int(invitation.port).Text(invitation.secret);
  fields.Int(static_cast<int64_t>(invitation.addresses.size()));
  for (const std::string& address : invitation.addresses) fields.Text(address);
  return fields.bytes();
}

absl::StatusOr<Invitation> DecodeInvitation(const std::string& bytes) {
  tcp::FieldReader fields(bytes);
  Invitation invitation;
  invitation.host_name = fields.Text();
  invitation.port = static_cast<int>(fields.Int());
  invitation.secret = fields.Text();
  for (int64_t left = fields.Int(); left > 0 && fields.ok(); --left) {
    invitation.addresses.push_back(fields.Text());
  }
  if (!fields.AtEnd()) return DeviceError("rank 0's invitation cannot be read");
  return invitation;
}

Invitation Invite(const tcp::Fd& listener) {
  const std::string secret = SecretOfEnvironment();
  return {tcp::HostName(), tcp::InterfaceAddresses(), tcp::LocalEnd(listener).port,
          secret.empty() ? RandomBytes(kSecretBytes) : secret};
}

absl::StatusOr<std::unique_ptr<ControlPlane>> Accept(const Invitation& invitation,
                                                     ControlSeat seat) {
  std::vector<tcp::Endpoint> endpoints;
  if (invitation.host_name == tcp::HostName()) endpoints.push_back({"127.0.0.1", invitation.port});
  for (const std::string& address : invitation.addresses) {
    endpoints.push_back({address, invitation.port});
  }
  seat.secret = invitation.secret;
  return ControlPlane::Join(seat, endpoints);
}

// The control plane of ranks that MPI has connected.
absl::StatusOr<std::unique_ptr<ControlPlane>> ControlOverMpi(Communicator& comm, ControlSeat seat) {
  absl::StatusOr<tcp::Fd> listener = tcp::Fd();
  std::string text;
  if (seat.rank == 0) {
    listener = tcp::Listen("", 0);
    if (listener.ok()) {
      const Invitation invitation = Invite(*listener);
      seat.secret = invitation.secret;
      text = Encode(invitation);
    }
  }
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(comm, listener.status()));
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    text = GatherText(comm, text).front();
    return absl::OkStatus();
  }));
  if (seat.rank == 0) return ControlPlane::Lead(seat, *std::move(listener));
  OSLER_ASSIGN_OR_RETURN(const Invitation invitation, DecodeInvitation(text));
  return Accept(invitation, std::move(seat));
}

absl::StatusOr<World> ConnectOverMpi(const LaunchInfo& launch, const ControlTimes& times,
                                     const CommunicatorOptions& options) {
  World world;
  OSLER_ASSIGN_OR_RETURN(world.comm, ConnectMpi(options));
  const int rank = world.comm->rank(), size = world.comm->size();
  if (rank != launch.rank || size != launch.world_size) {
    world.comm->Abandon();
    return DeviceError(absl::StrCat(launch.launcher, "'s environment says rank ", launch.rank,
                                    " of ", launch.world_size, ", MPI says rank ", rank, " of ",
                                    size, ": the launcher belongs to another MPI than osler's (",
                                    MpiLibraryVersion(), "); use that one's mpirun"));
  }
  if (size == 1) {
    world.control = ControlPlane::Alone();
    return world;
  }
  auto control = ControlOverMpi(*world.comm, {rank, size, "", times});
  if (!control.ok()) {
    world.comm->Abandon();
    return control.status();
  }
  world.control = *std::move(control);
  return world;
}

// The control plane of ranks that know where rank 0 listens, or whose agent's store does.
absl::StatusOr<std::unique_ptr<ControlPlane>> ControlOverTcp(const LaunchInfo& launch,
                                                             ControlSeat seat) {
  seat.secret = SecretOfEnvironment();
  const double patience_s = seat.times.connect_s;
  if (launch.agent_key.empty()) {
    if (seat.rank != 0) return ControlPlane::Join(seat, {launch.master});
    const bool here = tcp::IsLoopback(launch.master.host);
    OSLER_ASSIGN_OR_RETURN(tcp::Fd listener,
                           tcp::Listen(here ? launch.master.host : "", launch.master.port));
    return ControlPlane::Lead(seat, std::move(listener));
  }
  if (seat.rank != 0) {
    OSLER_ASSIGN_OR_RETURN(const std::string text,
                           GetFromAgentStore(launch.master, launch.agent_key, patience_s));
    OSLER_ASSIGN_OR_RETURN(const Invitation invitation, DecodeInvitation(text));
    return Accept(invitation, std::move(seat));
  }
  OSLER_ASSIGN_OR_RETURN(tcp::Fd listener, tcp::Listen("", 0));
  const Invitation invitation = Invite(listener);
  seat.secret = invitation.secret;
  OSLER_RETURN_IF_ERROR(
      PutIntoAgentStore(launch.master, launch.agent_key, Encode(invitation), patience_s));
  return ControlPlane::Lead(seat, std::move(listener));
}

// Where a rank's data port listens: on the interface that reaches rank 0; on all when that is a
// loopback one, unless every rank is on this machine.
std::string DataInterface(const ControlPlane& control, const LaunchInfo& launch) {
  if (launch.local_size == launch.world_size) return "127.0.0.1";
  const std::string& own = control.own_end().host;
  return tcp::IsLoopback(own) ? "" : own;
}

absl::StatusOr<std::unique_ptr<Communicator>> ConnectData(ControlPlane& control,
                                                          const LaunchInfo& launch,
                                                          const ControlTimes& times,
                                                          const CommunicatorOptions& options) {
  const std::string interface = DataInterface(control, launch);
  OSLER_ASSIGN_OR_RETURN(tcp::Fd listener, tcp::Listen(interface, 0));
  // Rank 0's random number keeps out whoever does not read the control connections.
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> blobs,
                         control.Exchange("data port", tcp::FieldWriter()
                                                           .Text(interface)
                                                           .Int(tcp::LocalEnd(listener).port)
                                                           .Text(RandomBytes(kSecretBytes))
                                                           .bytes()));
  std::vector<tcp::Endpoint> listeners;
  std::string key;
  for (const std::string& blob : blobs) {
    tcp::FieldReader fields(blob);
    tcp::Endpoint endpoint{fields.Text(), static_cast<int>(fields.Int())};
    if (key.empty()) key = HmacSha256(SecretOfEnvironment(), fields.Text());
    // No interface of its own: the rank is where rank 0 is.
    if (endpoint.host.empty()) endpoint.host = control.hub_end().host;
    if (endpoint.host.empty()) endpoint.host = "127.0.0.1";
    listeners.push_back(std::move(endpoint));
  }
  absl::StatusOr<std::vector<tcp::Fd>> peers = tcp::ConnectFullMesh(
      launch.rank, listeners, std::move(listener), key, Clock::now() + Seconds(times.connect_s));
  if (!peers.ok()) return peers.status();
  // From here on all may send.
  OSLER_RETURN_IF_ERROR(control.Exchange("connected", "").status());
  return MakeMessageWorld(tcp::MakeTcpTransport(launch.rank, *std::move(peers)), options);
}

absl::StatusOr<World> ConnectOverTcp(const LaunchInfo& launch, const ControlTimes& times,
                                     const CommunicatorOptions& options) {
  World world;
  OSLER_ASSIGN_OR_RETURN(world.control,
                         ControlOverTcp(launch, {launch.rank, launch.world_size, "", times}));
  auto comm = ConnectData(*world.control, launch, times, options);
  if (!comm.ok()) {
    const std::optional<Blame> blame = world.control->Leave(comm.status());
    return blame.has_value() && blame->rank != launch.rank ? DeviceError(Text(*blame))
                                                           : comm.status();
  }
  world.comm = *std::move(comm);
  return world;
}

}  // namespace

absl::StatusOr<World> ConnectWorld(const LaunchInfo& launch, const ControlTimes& times,
                                   const CommunicatorOptions& options) {
  if (launch.network == Network::kNone) {
    return World{ControlPlane::Alone(), MakeSingleCommunicator()};
  }
  // A second connection would meet what the first one left: its invitation in torchrun's store, its
  // port, an MPI that is initialised once.
  static std::atomic<bool> connected = false;
  if (connected) return DeviceError("this process is already connected to its run: connect once");
  absl::StatusOr<World> world = launch.network == Network::kMpi
                                    ? ConnectOverMpi(launch, times, options)
                                    : ConnectOverTcp(launch, times, options);
  connected = world.ok();
  return world;
}

}  // namespace osler
