// Sums gradients over the data axis.
#pragma once

#include "model/parameter_store.h"
#include "parallel/communicator.h"

namespace osler {

// Every trainable slot's gradient becomes the sum over `comm`'s ranks, in buckets of at most 32 MiB
// so that small parameters share a collective. Slots a rank never touched count as zero. Throws
// c10::Error.
void AllReduceGradients(ParameterStore& store, Communicator& comm);

}  // namespace osler
