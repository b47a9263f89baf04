// The operations that message communicators are made of. See parallel/message_communicator.h.
#pragma once

#include <memory>

#include "parallel/communicator.h"
#include "parallel/engine.h"

namespace osler {

// Which rank of a group a collective is made for, and where it stands in the group's order.
struct Place {
  int rank = 0, size = 1;
  int64_t sequence = 0;
};

// `collective` has passed Communicator::Run's checks.
std::shared_ptr<Operation> MakeMessageOperation(Collective collective, const Place& place,
                                                Engine& engine, uint64_t record);

}  // namespace osler
