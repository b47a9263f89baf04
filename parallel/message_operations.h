// The operations that message communicators are made of. See parallel/message_communicator.h.
#pragma once

#include <memory>

#include "parallel/communicator.h"
#include "parallel/message_meeting.h"

namespace osler {

// `collective` has passed Communicator::Run's checks.
std::shared_ptr<Operation> MakeMessageOperation(Collective collective, const Place& place,
                                                Engine& engine, uint64_t record);

}  // namespace osler
