// How much memory one block's forward and backward pass take, step by step as the kernels and
// autograd make and free tensors. Pure arithmetic.
#pragma once

#include <cstdint>

#include "trainer/plan/layer_shape.h"

namespace osler {

// Of a micro-batch on one rank.
struct RowSizes {
  int64_t rows = 0;      // tokens of the context rank, filled up (RowsFor)
  int64_t own_rows = 0;  // rows ÷ tensor ranks: what a rank has between blocks
  int64_t element = 4;   // bytes of a value
  int64_t sum = 4;       // bytes of a statistic or a sum: 8 for fp64, else 4
  bool tensor = false;   // rows are gathered and dealt out again
  int64_t mlp_chunk = 0;
  // Of one thread of attention's kernel.
  int64_t forward_scratch = 0, backward_scratch = 0;
  // Context parallelism: keys that are here at once besides the rank's own, and sent; 0: no such
  // axis. In a ring, a rank's at a time; else those that the rank's rows see.
  int64_t seen_keys = 0, sent_keys = 0;
  bool ring = false;
};

// Bytes. A block's input is not part of them: it is the output of the block before.
struct BlockMemory {
  int64_t output = 0;
  int64_t kept = 0;           // by its graph, with the output
  int64_t forward = 0;        // the most at once, without a graph
  int64_t forward_graph = 0;  // and with one
  int64_t backward = 0;       // the most at once going back, with what was kept
  // What its memo holds; the most at once while that is made, without a graph; the most at once
  // with a graph, beside the memo, which was made before.
  int64_t memo = 0, forward_memo = 0, forward_again = 0;
  int64_t gradients = 0;  // of its parameters, as autograd hands them over
};

BlockMemory LayerMemory(const LayerShape& shape, const RowSizes& rows);
BlockMemory EmbeddingMemory(int64_t width, const RowSizes& rows, int tensor_ranks);
BlockMemory NormMemory(int64_t width, const RowSizes& rows);

}  // namespace osler
