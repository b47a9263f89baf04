// How two ranks of a run meet: each proves that it knows the run's secret without sending it.
//
//   server → client   challenge: a random number
//   client → server   hello: purpose, rank, world size, a random number of its own, and the
//                     HMAC-SHA256 of all that and the challenge, keyed by the secret
//   server → client   welcome: the HMAC of both random numbers; or the reason of a refusal
//
// That keeps out strangers and ranks of other runs. It neither hides nor protects what is sent
// afterwards (docs/faults.md).
#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/tcp/connection.h"
#include "parallel/tcp/socket.h"

namespace osler::tcp {

enum class Purpose : int64_t { kControl = 1, kData = 2 };

struct Hello {
  Purpose purpose = Purpose::kControl;
  int rank = 0, world_size = 1;
};

struct Guest {
  Hello hello;
  Connection connection;
};

// Logs refusals: each of the first, then one line for many.
class RefusalLog {
 public:
  void Refuse(const std::string& who, const absl::Status& why);

 private:
  int64_t count_ = 0, unsaid_ = 0;
  Clock::time_point last_{};
};

// The server's side for any number of clients at once. Nothing that a client sends or omits to send
// holds up another: garbage, a wrong secret, silence, a frame too long and an early end are
// refused and logged. Not thread-safe; never blocks.
class Acceptor {
 public:
  struct Options {
    std::string name;  // of the listener, for the log
    std::string secret;
    double patience_s = 5;  // from connecting to a valid hello
  };
  // `admit` says whether a client that knows the secret may come in; its error is told to it.
  Acceptor(Fd listener, Options options, std::function<absl::Status(const Hello&)> admit);

  // What poll(2) should wait for.
  void AddPolls(std::vector<pollfd>& polls) const;
  // Goes on with everyone as far as possible without waiting; returns who was welcomed.
  std::vector<Guest> Advance();

 private:
  struct Pending {
    Connection connection;
    std::string who, challenge;
    Clock::time_point deadline;
  };
  enum class Answer { kWait, kDone };
  void AcceptNew();
  absl::StatusOr<Answer> Attend(Pending& client, std::vector<Guest>& guests);
  absl::Status Welcome(Pending& client, const Frame& frame, std::vector<Guest>& guests);

  Fd listener_;
  Options options_;
  std::function<absl::Status(const Hello&)> admit_;
  std::vector<Pending> pending_;
  RefusalLog refusals_;
};

// The client's side: tries the endpoints in turn, again and again, until one welcomes it or the
// deadline has come; blocks. A refusal, or a server that speaks something else, is final. Device
// errors name the endpoint.
absl::StatusOr<Connection> Dial(const std::vector<Endpoint>& endpoints, const std::string& secret,
                                const Hello& hello, Clock::time_point deadline);

}  // namespace osler::tcp
