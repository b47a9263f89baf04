// Ranks that are threads of one process: for tests of every layout without a launcher.
//
// Each communicator belongs to one thread, which must destroy it (or call Abandon) when it ends,
// however it ends: ranks that then wait for it get a c10::DistError that names it instead of
// waiting for ever. tests/testing/run_ranks.h does so.
#pragma once

#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/engine.h"

namespace osler {

// A new group of `size` ≥ 1 ranks; element r is rank r's.
std::vector<std::unique_ptr<Communicator>> MakeLocalGroup(int size,
                                                          const CommunicatorOptions& options = {});

}  // namespace osler
