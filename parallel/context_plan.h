// Which keys a context rank's rows see, where they are, and the mask over them. Pure arithmetic on
// the split and the mask of the whole run, the same on every rank: nothing is asked of others.
//
// Any ascending subset of a run's keys keeps every row's interval in one piece with ascending ends,
// so the masks over fetched or travelling keys are row intervals again.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interval_attention.h"
#include "parallel/context_split.h"

namespace osler {

// The tokens that are in both.
TokenRanges Common(const TokenRanges& a, const TokenRanges& b);

// The keys that some row in `rows` sees. PRE: rows lie in the mask.
TokenRanges SeenKeys(const MaskIntervals& mask, const TokenRanges& rows);

// The rows in `rows` of the whole run's mask, over the keys in `keys` numbered in order, followed
// by rows that see nothing, `count` rows in all.
MaskIntervals RowsOverKeys(const MaskIntervals& mask, const TokenRanges& rows, int64_t count,
                           const TokenRanges& keys);

// Where the tokens of `part` stand among those of `whole`, numbered in order. PRE: a part of them.
TokenRanges PlacesIn(const TokenRanges& whole, const TokenRanges& part);

// One rank's share of the exchange that brings each rank the keys its rows see.
struct KeyExchange {
  std::vector<TokenRanges> send;     // to each rank: places among this rank's own tokens
  std::vector<TokenRanges> receive;  // from each rank: places among the keys this rank's rows see
  int64_t keys = 0;                  // that this rank's rows see
  int64_t most_keys = 0;             // of any rank
  int64_t travelling = 0;  // keys that some rank sends to another, each counted per receiver
};
KeyExchange PlanKeyExchange(const MaskIntervals& mask, const ContextSplit& split, int rank);

}  // namespace osler
