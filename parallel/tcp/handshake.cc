#include "parallel/tcp/handshake.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/status_macros.h"

namespace osler::tcp {
namespace {

enum FrameType : uint16_t { kChallenge = 1, kHello = 2, kWelcome = 3, kRefused = 4 };

constexpr size_t kNonceBytes = 32;
constexpr size_t kLongestFromStranger = 512;
constexpr size_t kMostPending = 256;
constexpr int64_t kRefusalsInFull = 20;
constexpr double kRefusalsEvery_s = 10;
constexpr double kDialPatience_s = 10;  // for one answer of a server

std::string SignedFields(const Hello& hello, const std::string& challenge,
                         const std::string& nonce) {
  return FieldWriter()
      .Text("osler hello")
      .Text(challenge)
      .Text(nonce)
      .Int(static_cast<int64_t>(hello.purpose))
      .Int(hello.rank)
      .Int(hello.world_size)
      .bytes();
}

std::string WelcomeMac(const std::string& secret, const std::string& challenge,
                       const std::string& nonce) {
  return HmacSha256(secret,
                    FieldWriter().Text("osler welcome").Text(challenge).Text(nonce).bytes());
}

}  // namespace

void RefusalLog::Refuse(const std::string& who, const absl::Status& why) {
  ++count_;
  const auto now = Clock::now();
  if (count_ > kRefusalsInFull && now - last_ < Seconds(kRefusalsEvery_s)) {
    ++unsaid_;
    return;
  }
  LogWarning("refused a connection from {}: {}{}", who, std::string(why.message()),
             unsaid_ == 0 ? "" : absl::StrCat(" (and ", unsaid_, " others)"));
  unsaid_ = 0;
  last_ = now;
}

Acceptor::Acceptor(Fd listener, Options options, std::function<absl::Status(const Hello&)> admit)
    : listener_(std::move(listener)), options_(std::move(options)), admit_(std::move(admit)) {}

void Acceptor::AddPolls(std::vector<pollfd>& polls) const {
  polls.push_back({listener_.get(), POLLIN, 0});
  for (const Pending& client : pending_) polls.push_back({client.connection.fd().get(), POLLIN, 0});
}

void Acceptor::AcceptNew() {
  while (true) {
    absl::StatusOr<Fd> fd = Accept(listener_);
    if (!fd.ok() || !fd->valid()) return;
    const std::string who = ToString(RemoteEnd(*fd));
    Pending client{Connection(*std::move(fd), kLongestFromStranger), who, RandomBytes(kNonceBytes),
                   Clock::now() + Seconds(options_.patience_s)};
    client.connection.Send(kChallenge, client.challenge);
    if (pending_.size() >= kMostPending) {  // whoever has kept silent longest makes room
      refusals_.Refuse(pending_.front().who, DeviceError("too many connections say nothing"));
      pending_.erase(pending_.begin());
    }
    pending_.push_back(std::move(client));
  }
}

std::vector<Guest> Acceptor::Advance() {
  AcceptNew();
  std::vector<Guest> guests;
  std::vector<Pending> waiting;
  for (Pending& client : pending_) {
    const absl::StatusOr<Answer> answer = Attend(client, guests);
    if (!answer.ok()) {
      refusals_.Refuse(absl::StrCat(client.who, " at ", options_.name), answer.status());
    } else if (*answer == Answer::kWait) {
      waiting.push_back(std::move(client));
    }
  }
  pending_ = std::move(waiting);
  return guests;
}

absl::StatusOr<Acceptor::Answer> Acceptor::Attend(Pending& client, std::vector<Guest>& guests) {
  OSLER_RETURN_IF_ERROR(client.connection.Flush());
  const absl::Status received = client.connection.Receive();
  OSLER_ASSIGN_OR_RETURN(const std::optional<Frame> frame, client.connection.Next());
  if (frame.has_value()) {
    OSLER_RETURN_IF_ERROR(Welcome(client, *frame, guests));
    return Answer::kDone;
  }
  OSLER_RETURN_IF_ERROR(received);
  if (Clock::now() < client.deadline) return Answer::kWait;
  return DeviceError(absl::StrCat("it said nothing for ", options_.patience_s, " s"));
}

absl::Status Acceptor::Welcome(Pending& client, const Frame& frame, std::vector<Guest>& guests) {
  FieldReader fields(frame.payload);
  Guest guest{{static_cast<Purpose>(fields.Int()), static_cast<int>(fields.Int()),
               static_cast<int>(fields.Int())},
              std::move(client.connection)};
  const std::string nonce = fields.Text(), mac = fields.Text();
  if (frame.type != kHello || !fields.AtEnd() || nonce.size() != kNonceBytes) {
    return DeviceError("its first message is not a greeting");
  }
  absl::Status admitted;
  if (!EqualInConstantTime(
          mac, HmacSha256(options_.secret, SignedFields(guest.hello, client.challenge, nonce)))) {
    admitted = DeviceError(
        "it does not know the secret of this run: start all ranks with the same OSLER_RUN_SECRET");
  } else {
    admitted = admit_(guest.hello);
  }
  if (!admitted.ok()) {
    guest.connection.Send(kRefused, std::string(admitted.message()));
    guest.connection.Flush().IgnoreError();
    return admitted;
  }
  guest.connection.Send(kWelcome, WelcomeMac(options_.secret, client.challenge, nonce));
  OSLER_RETURN_IF_ERROR(guest.connection.Flush());
  guests.push_back(std::move(guest));
  return absl::OkStatus();
}

namespace {

// How one attempt to be welcomed ended.
struct Attempt {
  absl::Status status;
  bool final = false;  // trying again will not help
};

// The next frame from a server, within the patience of one answer.
absl::StatusOr<Frame> Await(Connection& connection, Clock::time_point deadline) {
  while (true) {
    OSLER_ASSIGN_OR_RETURN(std::optional<Frame> frame, connection.Next());
    if (frame.has_value()) return *std::move(frame);
    if (!WaitFor(connection.fd().get(), POLLIN, deadline)) {
      return absl::DeadlineExceededError("it says nothing");
    }
    const absl::Status received = connection.Receive();
    if (received.ok()) continue;
    OSLER_ASSIGN_OR_RETURN(frame, connection.Next());
    if (frame.has_value()) return *std::move(frame);
    return absl::AbortedError("it closed the connection");
  }
}

// Silence and a closed connection may be a server that is just starting or going.
Attempt Failed(const absl::Status& status) {
  return {status, !absl::IsDeadlineExceeded(status) && !absl::IsAborted(status)};
}

Attempt Greet(Connection& connection, const std::string& secret, const Hello& hello,
              Clock::time_point deadline) {
  const absl::StatusOr<Frame> challenge = Await(connection, deadline);
  if (!challenge.ok()) return Failed(challenge.status());
  const std::string nonce = RandomBytes(kNonceBytes);
  const std::string mac = HmacSha256(secret, SignedFields(hello, challenge->payload, nonce));
  connection.Send(kHello, FieldWriter()
                              .Int(static_cast<int64_t>(hello.purpose))
                              .Int(hello.rank)
                              .Int(hello.world_size)
                              .Text(nonce)
                              .Text(mac)
                              .bytes());
  if (!connection.Flush().ok()) return {absl::AbortedError("it closed the connection"), false};
  const absl::StatusOr<Frame> answer = Await(connection, deadline);
  if (!answer.ok()) return Failed(answer.status());
  if (answer->type == kRefused) {
    return {DeviceError(absl::StrCat("it refused this rank: ", answer->payload)), true};
  }
  if (challenge->type != kChallenge || answer->type != kWelcome) {
    return {DeviceError("its answer is not a greeting"), true};
  }
  if (!EqualInConstantTime(answer->payload, WelcomeMac(secret, challenge->payload, nonce))) {
    return {DeviceError("it does not know the secret of this run (OSLER_RUN_SECRET)"), true};
  }
  return {absl::OkStatus(), true};
}

}  // namespace

absl::StatusOr<Connection> Dial(const std::vector<Endpoint>& endpoints, const std::string& secret,
                                const Hello& hello, Clock::time_point deadline) {
  Clock::duration pause = Seconds(0.02);
  while (true) {
    absl::Status last;
    bool hopeless = true;
    for (const Endpoint& endpoint : endpoints) {
      const auto patience = std::min(deadline, Clock::now() + Seconds(kDialPatience_s));
      absl::StatusOr<Fd> fd = Connect(endpoint, patience);
      if (!fd.ok()) {
        last = fd.status();
        hopeless = false;
        continue;
      }
      Connection connection(*std::move(fd), kLongestFromStranger);
      const Attempt attempt = Greet(connection, secret, hello, patience);
      if (attempt.status.ok()) return connection;
      last = DeviceError(
          absl::StrCat("cannot join at ", ToString(endpoint), ": ", attempt.status.message()));
      hopeless = hopeless && attempt.final;
    }
    if (hopeless || Clock::now() + pause >= deadline) return last;
    std::this_thread::sleep_for(pause);
    pause = std::min<Clock::duration>(2 * pause, Seconds(0.5));
  }
}

}  // namespace osler::tcp
