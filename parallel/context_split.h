// Which tokens of a packed run each rank of the context axis computes: a pure function of the run
// and the number of ranks, so that every rank finds the same split by itself.
//
// Tokens cost differently: a token's linear work is the same everywhere, its attention is as long
// as its mask interval, which grows along a causal document. The run is cut into equal segments,
// and segments are dealt to ranks so that costs balance; every rank gets the same number of
// segments and with it the same number of tokens, and memory. Of one causal document, two segments
// a rank make the zigzag of Brandon et al., "Striped Attention" (arXiv 2311.09431) and Llama 3
// (arXiv 2407.21783, §3.3.2). Nothing has to divide.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/interval_attention.h"

namespace osler {

struct TokenRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const TokenRange&) const = default;
};
using TokenRanges = std::vector<TokenRange>;  // ascending, none empty, none touching the next

int64_t TokenCount(const TokenRanges& ranges);

// A value.
struct ContextSplit {
  std::vector<TokenRanges> ranges;  // by rank; ranks are in the order of their first tokens
};

// The layers that share a mask over the whole run.
struct MaskedLayers {
  MaskIntervals mask;
  int64_t layers = 1;
};

// Of each token, in (query, key) pairs of one layer: Σ layers · (hi − lo) + linear, where `linear`
// is the cost of a token in everything but attention.
std::vector<int64_t> TokenCosts(std::span<const MaskedLayers> kinds, int64_t tokens,
                                int64_t linear);

// PRE: ranks ≥ 1, costs ≥ 0; any number of tokens, a rank may get none. Ranks' token counts differ
// by at most the segments a rank has (1, 2, 4, 8 or 16; the fewest that balance within 1 %), their
// costs by at most one segment's.
ContextSplit SplitContext(std::span<const int64_t> token_costs, int ranks);

}  // namespace osler
