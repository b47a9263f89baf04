#include "model/block.h"

#include <ATen/ops/empty.h>

namespace osler {

SequenceInputs Model::PrepareInputs(const std::vector<int32_t>& tokens,
                                    const std::vector<int32_t>& doc_starts) const {
  const auto length = static_cast<int64_t>(tokens.size());
  SequenceInputs inputs;
  inputs.tokens_T = at::empty({length}, at::kLong);
  inputs.positions_T = at::empty({length}, at::kLong);
  auto* token = inputs.tokens_T.mutable_data_ptr<int64_t>();
  auto* position = inputs.positions_T.mutable_data_ptr<int64_t>();
  size_t next = 0;
  int64_t start = 0;
  for (int64_t t = 0; t < length; ++t) {
    if (next < doc_starts.size() && doc_starts[next] == t) start = doc_starts[next++];
    token[t] = tokens[static_cast<size_t>(t)];
    TORCH_CHECK(token[t] >= 0 && token[t] < vocab_size, "token id ", token[t], " at position ", t,
                " is outside the model's vocabulary of ", vocab_size);
    position[t] = t - start;
  }
  for (const LayerKind& kind : layer_kinds) {
    inputs.masks.push_back(CausalDocumentIntervals(doc_starts, length, kind.window));
    inputs.ropes.push_back(MakeRopeTables(inputs.positions_T, head_dim, kind.rope));
  }
  return inputs;
}

}  // namespace osler
