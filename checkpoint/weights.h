// The weights of a Hugging Face model directory: model.safetensors, or shards with
// model.safetensors.index.json.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "checkpoint/safetensors.h"

namespace osler {

// Immutable and thread-safe.
class WeightDirectory {
 public:
  // Config errors: nothing to load, a shard the index names is missing, a tensor the index places
  // is not there (or in two files), a damaged file. Names outside the directory ("../x") are
  // refused.
  static absl::StatusOr<std::unique_ptr<WeightDirectory>> Open(Fs& fs,
                                                               const std::string& directory);
  virtual ~WeightDirectory() = default;
  virtual const std::vector<std::string>& names() const = 0;  // every tensor, sorted
  virtual const TensorInfo& info(const std::string& name) const = 0;
  virtual absl::StatusOr<at::Tensor> Tensor(const std::string& name) const = 0;
  // The files in order with the tensors of each, and the index file's name ("" when single): what
  // export mirrors.
  virtual const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const = 0;
  virtual const std::string& index_file() const = 0;
};

}  // namespace osler
