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

// Rows that see nothing are in no block. The costliest blocks come first.
// PRE of both: CheckIntervals holds.
std::vector<AttentionBlock> PlanForward(const MaskIntervals& mask, const AttentionHeads& heads);

// Waves to be run one after the other; no two blocks of a wave share columns or keys. A column's
// blocks, and a key's, lie in waves of one order, so their sums do too.
std::vector<std::vector<AttentionBlock>> PlanBackward(const MaskIntervals& mask,
                                                      const AttentionHeads& heads);

}  // namespace osler
