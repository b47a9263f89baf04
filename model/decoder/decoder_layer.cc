#include "model/decoder/decoder_layer.h"

#include <ATen/ops/add.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/gated_mlp.h"
#include "kernels/interval_attention.h"
#include "kernels/linear.h"
#include "kernels/norm_rope.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "parallel/context_attention.h"
#include "parallel/tensor.h"

namespace osler {

// A view's parameters by role; undefined where the family has none. The view must outlive it.
class DecoderLayer::Parameters {
 public:
  Parameters(const std::map<LayerRole, size_t>& places, const SlotView& view)
      : places_(places), view_(view) {}
  at::Tensor operator[](LayerRole role) const {
    const auto place = places_.find(role);
    return place == places_.end() ? at::Tensor() : view_[place->second];
  }

 private:
  const std::map<LayerRole, size_t>& places_;
  const SlotView& view_;
};

DecoderLayer::DecoderLayer(int64_t index, std::vector<int64_t> slots, const DecoderConfig& config)
    : slots_(std::move(slots)),
      name_(absl::StrCat("layer.", index)),
      index_(index),
      kind_(config.kind_of_layer[static_cast<size_t>(index)]),
      head_dim_(config.head_dim),
      norm_style_(config.norm_style),
      norm_eps_(config.norm_eps),
      score_scale_(config.score_scale),
      activation_(config.activation) {
  for (const auto& [role, name] : config.layer_names) places_.emplace(role, places_.size());
}

Activations DecoderLayer::Forward(const Activations& input, const SlotView& parameters,
                                  const SequenceInputs& inputs, BlockMemo* memo) const {
  const Parameters p(places_, parameters);
  const AttentionOptions options = {.scale = score_scale_,
                                    .memo = memo == nullptr ? nullptr : &memo->attention};
  const at::Tensor attended =
      Attention(Norm(input.x_TD, p, LayerRole::kInputNorm), p, inputs, options);
  const AddRmsNormOutput middle = AddThenNorm(
      input.x_TD, attended, p, LayerRole::kPostAttentionNorm, LayerRole::kPreFeedForwardNorm);
  const at::Tensor fed = FeedForward(middle.normed, p, inputs);
  const at::Tensor norm = p[LayerRole::kPostFeedForwardNorm];
  return {norm.defined() ? RmsNormAdd(middle.sum, fed, norm, norm_eps_, norm_style_)
                         : at::add(middle.sum, fed)};
}

at::Tensor DecoderLayer::Norm(const at::Tensor& x, const Parameters& p, LayerRole role) const {
  return RmsNorm(x, p[role], norm_eps_, norm_style_);
}

AddRmsNormOutput DecoderLayer::AddThenNorm(const at::Tensor& residual, const at::Tensor& x,
                                           const Parameters& p, LayerRole before_sum,
                                           LayerRole after_sum) const {
  const at::Tensor norm = p[before_sum];
  if (!norm.defined()) return AddRmsNorm(residual, x, p[after_sum], norm_eps_, norm_style_);
  const at::Tensor sum = RmsNormAdd(residual, x, norm, norm_eps_, norm_style_);
  return {sum, Norm(sum, p, after_sum)};
}

at::Tensor DecoderLayer::Rotate(const at::Tensor& x_THD, const Parameters& p, LayerRole norm,
                                const RopeTables& tables) const {
  const at::Tensor weight = p[norm];
  return weight.defined() ? NormRope(x_THD, weight, norm_eps_, norm_style_, tables)
                          : ApplyRope(x_THD, tables);
}

at::Tensor DecoderLayer::Project(const at::Tensor& x_TD, const Parameters& p, LayerRole weight,
                                 LayerRole bias) const {
  return Linear(x_TD, p[weight], p[bias]).view({x_TD.size(0), -1, head_dim_});
}

DecoderLayer::Heads DecoderLayer::MakeHeads(const at::Tensor& x_TD, const Parameters& p,
                                            const RopeTables& tables) const {
  const at::Tensor q_THD = Project(x_TD, p, LayerRole::kQuery, LayerRole::kQueryBias);
  const at::Tensor k_SHD = Project(x_TD, p, LayerRole::kKey, LayerRole::kKeyBias);
  return {.q_THD = Rotate(q_THD, p, LayerRole::kQueryNorm, tables),
          .keys = {.k_SHD = Rotate(k_SHD, p, LayerRole::kKeyNorm, tables),
                   .v_SHD = Project(x_TD, p, LayerRole::kValue, LayerRole::kValueBias)}};
}

at::Tensor DecoderLayer::Attention(const at::Tensor& x_TD, const Parameters& p,
                                   const SequenceInputs& inputs,
                                   const AttentionOptions& options) const {
  const at::Tensor all_TD = GatherTokens(inputs.tensor, x_TD);
  const at::Tensor out_THD = Attend(MakeHeads(all_TD, p, inputs.ropes[kind_]), inputs, options);
  return ScatterSum(inputs.tensor,
                    Linear(out_THD.reshape({all_TD.size(0), -1}), p[LayerRole::kOutput], {}));
}

at::Tensor DecoderLayer::Attend(const Heads& heads, const SequenceInputs& inputs,
                                const AttentionOptions& options) const {
  if (inputs.context != nullptr) {
    return inputs.context->Attend(kind_, heads.q_THD, heads.keys.k_SHD, heads.keys.v_SHD, options);
  }
  const KeysValues seen =
      inputs.cache == nullptr ? heads.keys : inputs.cache->Extend(index_, kind_, heads.keys);
  return IntervalAttention(heads.q_THD, seen.k_SHD, seen.v_SHD, inputs.masks[kind_], options);
}

at::Tensor DecoderLayer::FeedForward(const at::Tensor& x_TD, const Parameters& p,
                                     const SequenceInputs& inputs) const {
  return ScatterSum(inputs.tensor, GatedMlp(GatherTokens(inputs.tensor, x_TD), p[LayerRole::kGate],
                                            p[LayerRole::kUp], p[LayerRole::kDown], activation_,
                                            inputs.mlp_chunk_tokens));
}

}  // namespace osler
