// The keys and values of tokens that earlier passes saw: what makes decoding one token a pass.
//
// A layer hands in the keys and values of this pass's tokens (after RoPE, so that their order no
// longer matters) and attends to what it gets back, which SequenceInputs::masks index. Training has
// no cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>

namespace osler {

struct KeysValues {
  at::Tensor k_SHD, v_SHD;
};

class KeyValueCache {
 public:
  virtual ~KeyValueCache() = default;
  // `layer` counts from 0, `kind` is its place in Model::layer_kinds; called once a layer a pass.
  virtual KeysValues Extend(int64_t layer, size_t kind, const KeysValues& added) = 0;
};

}  // namespace osler
