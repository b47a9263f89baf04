// From a row of logits to the next token: greedy, temperature, top-k, top-p.
//
// The filters keep the tokens that transformers' logits warpers keep, applied in its order:
// temperature, top-k, top-p (Holtzman et al., "The Curious Case of Neural Text Degeneration",
// 2020). All arithmetic is fp64 in a fixed order, so a choice is a pure function of logits, options
// and the random number.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace osler {

struct SamplingOptions {
  double temperature = 0;  // divides the logits; 0: the likeliest token, always
  int64_t top_k = 0;       // keep the k likeliest tokens and any equal to the k-th; 0: all
  double top_p = 1;        // keep the likeliest tokens until their sum reaches p; 1: all
};

// Config errors name the option.
absl::Status CheckSampling(const SamplingOptions& options);

struct Candidate {
  int32_t id;
  double probability;
};

// The tokens that may follow, by ascending id; probabilities sum to 1. Equal logits: the lower id
// is the likelier. PRE: options pass CheckSampling; logits are not empty, below infinity, one above
// −infinity.
std::vector<Candidate> Candidates(std::span<const double> logits, const SamplingOptions& options);

// The candidate at the point `uniform` in [0, 1) of the cumulative distribution.
int32_t Pick(std::span<const Candidate> candidates, double uniform);

}  // namespace osler
