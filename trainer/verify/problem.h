// What every layout computes: a tiny model with random weights, and the global batches of a few
// steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/loader.h"
#include "model/registry.h"

namespace osler {

struct VerifyProblem {
  ModelSpec spec;
  std::map<std::string, at::Tensor> parameters;  // whole, fp64, by name
  std::vector<std::vector<Pack>> steps;          // the packs of each step's global batch
  double lr = 1e-2;
  double clip_norm = 0;  // below every step's norm, so that each step clips
};

// From a model directory's config.json; `name` is the file's, for errors. Packs hold several
// documents, longer and shorter than a window, single tokens, ignored labels and packs without any
// target; some steps have fewer packs than the standard layouts have readers. A pure function of
// its arguments.
absl::StatusOr<VerifyProblem> MakeVerifyProblem(std::string_view config_json,
                                                const std::string& name, uint64_t seed);

}  // namespace osler
