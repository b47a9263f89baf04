// Cuts attention under a row-interval mask into blocks of query columns × keys that threads can
// take.
//
// Blocks depend on the intervals and the numbers of heads alone, never on threads, and never cross
// from one set of rows that share keys (a document) into another: a document's numbers depend
// neither on another's values nor on where it stands in the pack.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interval_attention.h"
#include "kernels/interval_attention_tiles.h"

namespace osler {

// The query heads: each of `key_heads` serves `group` of them.
struct AttentionHeads {
  int64_t key_heads, group;
};

// Checks the mask of `rows` queries on `keys` keys: lo and hi int32 [rows] on the CPU,
// 0 <= lo <= hi <= keys, both non-decreasing. Throws c10::Error.
void CheckIntervals(const MaskIntervals& mask, int64_t rows, int64_t keys);

// The mask where attention is computed; a device's kernels do not look for mistakes in it, so it is
// checked before it goes there. Throws c10::Error.
MaskIntervals MaskOn(at::Device device, const MaskIntervals& mask, int64_t keys);

// A block and its place among the others. Blocks that share columns or keys run one after the other
// in a fixed order, so that their sums do; all others may run at once.
struct AttentionStep {
  AttentionBlock block;
  int64_t scores;   // (column, key) pairs that the mask lets through: its cost
  int64_t path;     // the cost of the longest chain of steps that starts with it
  int32_t waits;    // how many steps come right before it: 0, 1 or 2
  int32_t next[2];  // the steps right after it, on its columns and on its keys; −1: none
};

// Rows that see nothing are in no block. A step comes before those that wait for it.
// PRE of both: CheckIntervals holds.
std::vector<AttentionStep> PlanForward(const MaskIntervals& mask, const AttentionHeads& heads);
std::vector<AttentionStep> PlanBackward(const MaskIntervals& mask, const AttentionHeads& heads,
                                        int64_t width);

}  // namespace osler
