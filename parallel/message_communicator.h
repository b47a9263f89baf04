// The collectives, made of messages: every CPU back-end is this over its transport.
//
// A collective opens with a note from everyone to everyone that says what it is, with the payload
// itself when that is small. So ranks that call different things find out, nobody's memory is
// touched before all have come, and a time-out names who is missing. Larger payloads follow,
// straight from and to the tensors; what must be summed goes to the rank that sums it, in pieces.
#pragma once

#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/engine.h"
#include "parallel/transport.h"

namespace osler {

// The world of this process's one rank.
std::unique_ptr<Communicator> MakeMessageWorld(std::unique_ptr<Transport> transport,
                                               const CommunicatorOptions& options = {});
// Ranks of one process: element i is transport i's. They share an engine, so no transport may be
// polled.
std::vector<std::unique_ptr<Communicator>> MakeMessageWorlds(
    std::vector<std::unique_ptr<Transport>> transports, const CommunicatorOptions& options = {});

}  // namespace osler
