// Fills a parameter store from a Hugging Face model directory.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/status.h"
#include "base/fs.h"
#include "model/parameter_store.h"
#include "model/registry.h"

namespace osler {

// Reads every parameter that is present from DIR's safetensors into `store`, converted to `dtype`:
// of each only what this rank holds, straight from the mapped file to where it stays. Config errors
// name the tensor: missing, of another shape, or unexpected for the architecture.
absl::Status LoadWeights(Fs& fs, const std::string& directory, const ModelSpec& spec,
                         at::ScalarType dtype, ParameterStore& store);

}  // namespace osler
