// Which parameters are trained, at which rate and decay: train.freeze, train.train_only and
// optimizer.groups applied to a model's names.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "configs/schema/train.pb.h"
#include "model/parameter_store.h"

namespace osler {

// Parameters that share a rate and a decay.
struct ParameterGroup {
  double lr_scale = 1;      // times the step's rate
  double weight_decay = 0;  // per step, times the group's rate
  std::vector<int64_t> slots;
};

// Marks each slot of `store` trainable or not, and returns one group an item of optimizer.groups
// (in its order) and one last for the trainable parameters that none of them matches. Config
// errors: a pattern that matches no parameter (with the nearest names), and nothing left to train.
// Warns of a group that is left without parameters.
absl::StatusOr<std::vector<ParameterGroup>> GroupParameters(const config::Train& config,
                                                            ParameterStore& store);

}  // namespace osler
