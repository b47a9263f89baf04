// The sizes of a decoder layer as a rank holds it, read off the parameters that the model declared:
// what memory, work and messages of a layer follow from.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "model/block.h"
#include "model/parameter_store.h"

namespace osler {

// Widths are of this rank's slices.
struct LayerShape {
  int64_t hidden = 0, query = 0, key = 0, inner = 0;  // columns: of a token, its heads, the MLP
  int64_t query_heads = 0, key_heads = 0;
  bool head_norms = false;    // queries and keys are normed before RoPE (Gemma 3, Qwen3)
  bool output_norms = false;  // attention and MLP are normed before they are added (Gemma 3)
  // Elements of each matrix, by the last part of its name: "q_proj"; and of all other parameters.
  std::map<std::string, int64_t> matrices;
  int64_t vectors = 0;

  int64_t matrix_elements() const;
};

// An error of the bug class for a block with parameters that are not known here: a number that
// leaves them out would be wrong. PRE: the store is laid out.
absl::StatusOr<LayerShape> LayerShapeOf(const Block& layer, const ParameterStore& store,
                                        int64_t head_dim);

// "embedding", "layer.3" and "final_norm" are the three kinds of blocks.
bool IsLayer(const Block& block);

}  // namespace osler
