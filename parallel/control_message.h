// What the ranks' control planes say to each other, after the handshake of parallel/tcp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace osler {

// All in seconds. A silent rank is known after silence_s and less than a heartbeat more.
struct ControlTimes {
  double heartbeat_s = 1;
  double silence_s = 8;
  double connect_s = 60;  // for all ranks to come together, and for an exchange
  double linger_s = 5;    // that others may go on after a rank left with an error
  double hold_s = 0.7;    // to seek the cause of a communication error
};

// Whose failure ended the run.
struct Blame {
  int rank = 0;
  std::string reason;  // "died: …", "was silent for 8 s: …", "failed: …"
};

std::string Text(const Blame& blame);  // "rank 2 died: …"

// What a rank says when it leaves.
struct Words {
  int exit_code = 0;
  std::string message;
};

enum ControlFrame : uint16_t {
  kHeartbeat = 16,  // both ways
  kReady,           // hub: all ranks have come
  kExchange,        // rank: {name, blob}
  kExchanged,       // hub: {name, blob of each rank}
  kLastWords,       // rank: Words of a failure of its own
  kSuspicion,       // rank: Words of a communication error
  kFarewell,        // both ways: Words of leaving in good order
  kVerdict,         // hub: Blame
};

inline constexpr size_t kLongestControlPayload = size_t{64} << 20;
// A message of last words is cut to this.
inline constexpr size_t kLongestWords = 4096;

std::string Encode(const Words& words);
std::string Encode(const Blame& blame);
// False for bytes that are no such thing.
bool Decode(std::string_view payload, Words& words);
bool Decode(std::string_view payload, Blame& blame);

}  // namespace osler
