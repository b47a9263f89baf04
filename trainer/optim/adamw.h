// AdamW (Loshchilov & Hutter 2019) over a parameter store, with the arithmetic of
// torch.optim.AdamW.
//
// Works on pieces: of each parameter this rank has the state of its own piece alone and updates
// that, from gradient_piece; whoever holds more of a parameter gathers it afterwards (Residency).
// Each group of parameters has its rate and decay; parameters of no group have no state. bf16
// parameters keep an fp32 master copy; moments are fp32 (fp64 for fp64 parameters). Not
// thread-safe; the store must outlive it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/parameter_store.h"
#include "trainer/parameter_groups.h"

namespace osler {

// Where masters and moments live, and so where the update is computed.
enum class StatePlace { kWithParameters, kCpu };

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  StatePlace state = StatePlace::kWithParameters;
};

class AdamW {
 public:
  // State of one slot's piece, 1-D. `master` is what is updated: the piece itself, or a copy of it
  // in fp32 for bf16 parameters and on the CPU with StatePlace::kCpu.
  struct Moments {
    int64_t slot = 0;
    size_t group = 0;
    at::Tensor master, exp_avg, exp_avg_sq;
  };

  // PRE: the store holds values. Moments begin at zero, for slots that are present.
  AdamW(ParameterStore& store, const AdamWOptions& options, std::vector<ParameterGroup> groups);
  // One update, number `step` from 1, with rate `lr` times each group's scale, of gradients
  // multiplied by `gradient_factor` (clipping). Afterwards the pieces have the new values.
  void Step(int64_t step, double lr, double gradient_factor);
  // In the order of slots.
  std::vector<Moments>& moments() { return moments_; }
  const std::vector<ParameterGroup>& groups() const { return groups_; }
  // Whether the slot's master is wider than its value: part of the state, not a mere copy.
  bool HasWideMaster(const Moments& one) const;
  // After parameters and moments were loaded: brings values and masters together, from the wider.
  void StateLoaded();

 private:
  void Publish(const Moments& one);  // its master as the piece
  void StepGroup(size_t group, int64_t step, double lr, double gradient_factor);

  ParameterStore& store_;
  AdamWOptions options_;
  std::vector<ParameterGroup> groups_;
  std::vector<Moments> moments_;
};

// torch.nn.utils.clip_grad_norm_'s factor: min(1, clip / (norm + 1e-6)); 1 when clip is 0.
double ClipFactor(double norm, double clip);

}  // namespace osler
