// Which meshes a model can be laid out on.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "model/registry.h"
#include "parallel/mesh.h"

namespace osler {

// A config error that names the axis, the model's number and the nearest sizes that fit, unless
//   - the tensor axis divides the attention heads, the width of the MLP and the vocabulary, and it
//     divides the key/value heads or is a multiple of them (neighbours then share a head), and
//   - every one of the pipeline's stages × `chunks_per_stage` chunks gets a layer; they may be
//     uneven.
// The axes data, shard and context take any size.
absl::Status CheckLayout(const ModelSpec& spec, const MeshShape& mesh,
                         int64_t chunks_per_stage = 1);

}  // namespace osler
