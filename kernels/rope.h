// Rotary position embedding (Su et al. 2021), half-split ("rotate_half") as Hugging Face models
// compute it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace osler {

// Which frequencies Llama 3 slows down: a frequency whose wavelength is at most
// original_positions / high_factor keeps its value, one beyond original_positions / low_factor is
// divided by RopeOptions::factor, and those between blend from the one to the other.
struct Llama3Ramp {
  double low_factor = 1, high_factor = 4;
  int64_t original_positions = 8192;  // the context of pre-training
};

// Which frequencies YaRN (Peng et al. 2023) slows down: one that turns fast_turns times or more
// within original_positions keeps its value, one of slow_turns or fewer is divided by
// RopeOptions::factor, and those between blend, linearly in their index.
struct YarnRamp {
  double fast_turns = 32, slow_turns = 1;  // beta_fast and beta_slow
  int64_t original_positions = 8192;       // the context of pre-training
  bool truncate = true;                    // the ramp begins and ends at whole indices
  double magnitude = 1;  // cosines and sines are multiplied by it: scores grow by its square
};

// Frequency i of a head of width D is theta^(-2i/D), then slowed down by `factor`: all alike
// (linear scaling: as if positions were divided by it), or by a ramp over the frequencies, of which
// at most one is given. A further ramp is another optional here and another function in rope.cc.
struct RopeOptions {
  double theta = 10000;
  double factor = 1;
  std::optional<Llama3Ramp> llama3 = std::nullopt;
  std::optional<YarnRamp> yarn = std::nullopt;
};

// fp32 tables of shape [T, D] (both halves filled), computed in fp32 like the reference
// implementation, on the positions' device.
struct RopeTables {
  at::Tensor cos_TD, sin_TD;
};
RopeTables MakeRopeTables(const at::Tensor& positions_T, int64_t head_dim,
                          const RopeOptions& options);

// Rotates x_THD ([T, H, D]) by the tables; the result has x's dtype. Differentiable through
// autograd.
at::Tensor ApplyRope(const at::Tensor& x_THD, const RopeTables& tables);

}  // namespace osler
