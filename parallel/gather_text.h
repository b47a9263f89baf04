// Text from every rank to every rank, in two collectives.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"

namespace osler {

// By rank. Collective; throws c10::Error. For short texts: each takes the room of the longest.
std::vector<std::string> GatherText(Communicator& comm, std::string_view text);

}  // namespace osler
