// A communicator that errs: for tests which must notice. It wraps a real one and, through Split,
// every group made from it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "parallel/communicator.h"

namespace osler::testing {

// Runs a collective of the group `inner`, rightly or wrongly: `return inner.Run(collective)` is the
// real one. `path` names the group from the wrapped one down: "tensor", "tensor/copies", "" for the
// wrapped one itself. Called on the rank's thread; one function may be shared by ranks.
using Fault =
    std::function<Handle(Communicator& inner, const std::string& path, Collective collective)>;

// `inner` must outlive it.
std::unique_ptr<Communicator> MakeFaultyCommunicator(Communicator& inner, Fault fault);

// A handle that calls `then` when it is first waited for, after `handle` is done.
Handle Afterwards(Handle handle, std::function<void()> then);

}  // namespace osler::testing
