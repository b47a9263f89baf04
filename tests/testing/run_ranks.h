// RunRanks under the name that tests use.
#pragma once

#include "parallel/local/run_ranks.h"

namespace osler::testing {
using ::osler::RunRanks;
}  // namespace osler::testing
