// One layer of a decoder: attention and a gated MLP, each between its norms and added to its input.
//
// With a tensor axis the weights given are this rank's slices, and a head is computed where its
// weights are: the numbers of heads follow from the slices. Norms and sums are of this rank's rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/rms_norm.h"
#include "model/block.h"
#include "model/decoder/decoder_config.h"

namespace osler {

class DecoderLayer final : public Block {
 public:
  // `slots` are the parameters of config.layer_names, in its order.
  DecoderLayer(int64_t index, std::vector<int64_t> slots, const DecoderConfig& config);
  const std::vector<int64_t>& slots() const override { return slots_; }
  std::string name() const override { return name_; }
  Activations Forward(const Activations& input, const SlotView& parameters,
                      const SequenceInputs& inputs, BlockMemo* memo) const override;

 private:
  class Parameters;
  struct Heads {
    at::Tensor q_THD;
    KeysValues keys;
  };
  at::Tensor Norm(const at::Tensor& x, const Parameters& p, LayerRole role) const;
  // residual + x, x normed first where the family has that norm, and the sum's own norm.
  AddRmsNormOutput AddThenNorm(const at::Tensor& residual, const at::Tensor& x, const Parameters& p,
                               LayerRole before_sum, LayerRole after_sum) const;
  // Normed first where the family has that norm.
  at::Tensor Rotate(const at::Tensor& x_THD, const Parameters& p, LayerRole norm,
                    const RopeTables& tables) const;
  // x W^T + b in heads of head_dim.
  at::Tensor Project(const at::Tensor& x_TD, const Parameters& p, LayerRole weight,
                     LayerRole bias) const;
  // Queries and keys are normed and rotated: what attention, or a cache of keys, takes.
  Heads MakeHeads(const at::Tensor& x_TD, const Parameters& p, const RopeTables& tables) const;
  at::Tensor Attention(const at::Tensor& x_TD, const Parameters& p, const SequenceInputs& inputs,
                       const AttentionOptions& options) const;
  // Over the keys of this pass, of the cache, or of all context ranks.
  at::Tensor Attend(const Heads& heads, const SequenceInputs& inputs,
                    const AttentionOptions& options) const;
  at::Tensor FeedForward(const at::Tensor& x_TD, const Parameters& p,
                         const SequenceInputs& inputs) const;

  std::vector<int64_t> slots_;
  std::map<LayerRole, size_t> places_;  // in a SlotView
  std::string name_;
  int64_t index_;
  size_t kind_;
  int64_t head_dim_;
  NormStyle norm_style_;
  double norm_eps_, score_scale_;
  GateKind activation_;
};

}  // namespace osler
