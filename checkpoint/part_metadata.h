// How a safetensors file of a checkpoint says that one of its tensors is a part of a larger one: an
// entry of its metadata under the tensor's name, such as
//   {"shape":[8,4],"dim":1,"slice":[2,2],"range":[0,16]}
// for elements [0, 16) of the flat slice [:, 2:4] of a tensor of shape [8, 4]. A tensor without an
// entry is whole. docs/checkpoint.md.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "parallel/tensor_part.h"

namespace osler {

std::string FormatPart(const TensorPart& part);
// Errors have no exit class: not of this form, out of the bounds of the shape, too large.
absl::StatusOr<TensorPart> ParsePart(std::string_view text);

}  // namespace osler
