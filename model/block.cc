#include "model/block.h"

#include <ATen/ops/tensor.h>

#include "kernels/cuda/device.h"

namespace osler {

SequenceInputs Model::PrepareInputs(const std::vector<int32_t>& tokens,
                                    const std::vector<int32_t>& doc_starts) const {
  const std::vector<int64_t> positions =
      DocumentPositions(doc_starts, static_cast<int64_t>(tokens.size()));
  SequenceInputs inputs = PrepareRows(tokens, positions);
  inputs.masks = DocumentMasks(doc_starts, static_cast<int64_t>(tokens.size()));
  return inputs;
}

SequenceInputs Model::PrepareRows(const std::vector<int32_t>& tokens,
                                  const std::vector<int64_t>& positions, at::Device device) const {
  for (size_t t = 0; t < tokens.size(); ++t) {
    TORCH_CHECK(tokens[t] >= 0 && tokens[t] < vocab_size, "token id ", tokens[t], " at position ",
                t, " is outside the model's vocabulary of ", vocab_size);
  }
  SequenceInputs inputs;
  inputs.tokens_T = ToDevice(at::tensor(tokens, at::kLong), device);
  inputs.positions_T = ToDevice(at::tensor(positions, at::kLong), device);
  for (const LayerKind& kind : layer_kinds)
    inputs.ropes.push_back(MakeRopeTables(inputs.positions_T, head_dim, kind.rope));
  return inputs;
}

std::vector<MaskIntervals> Model::DocumentMasks(const std::vector<int32_t>& doc_starts,
                                                int64_t length) const {
  std::vector<MaskIntervals> masks;
  for (const LayerKind& kind : layer_kinds)
    masks.push_back(CausalDocumentIntervals(doc_starts, length, kind.window));
  return masks;
}

std::vector<int64_t> DocumentPositions(const std::vector<int32_t>& doc_starts, int64_t length) {
  std::vector<int64_t> positions;
  size_t next = 0;
  int64_t start = 0;
  for (int64_t t = 0; t < length; ++t) {
    if (next < doc_starts.size() && doc_starts[next] == t) start = doc_starts[next++];
    positions.push_back(t - start);
  }
  return positions;
}

}  // namespace osler
