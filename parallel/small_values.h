// Texts and numbers that ranks tell each other now and then.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"

namespace osler {

// Every rank's text, by rank. Two collectives; throws c10::Error. For short texts: each takes the
// room of the longest.
std::vector<std::string> GatherText(Communicator& comm, std::string_view text);

// The first rank's value on every rank. Collective; throws c10::Error.
int64_t BroadcastInt(Communicator& comm, int64_t value);

}  // namespace osler
