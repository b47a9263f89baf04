#include "model/decoder/gemma3.h"

#include <ATen/ops/add.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/interval_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"

namespace osler {
namespace {

// Model::layer_kinds, and so SequenceInputs' masks and tables.
constexpr size_t kGlobalKind = 0, kLocalKind = 1;

// slots: embed_tokens [V, D].
class EmbeddingBlock : public Block {
 public:
  EmbeddingBlock(int64_t slot, int64_t hidden_size) : slots_{slot}, hidden_size_(hidden_size) {}
  const std::vector<int64_t>& slots() const override { return slots_; }
  std::string name() const override { return "embedding"; }

  Activations Forward(const Activations&, const SlotView& parameters,
                      const SequenceInputs& inputs) const override {
    const at::Tensor& weight_VD = parameters[0];
    // The released weights were trained with a scale rounded to their dtype.
    const double scale = at::scalar_tensor(std::sqrt(static_cast<float>(hidden_size_)), at::kFloat)
                             .to(weight_VD.scalar_type())
                             .item<double>();
    const at::Tensor rows_TD = at::embedding(weight_VD, inputs.tokens_T, /*padding_idx=*/-1,
                                             /*scale_grad_by_freq=*/false, /*sparse=*/true);
    return {at::mul(rows_TD, scale)};
  }

 private:
  std::vector<int64_t> slots_;
  int64_t hidden_size_;
};

// slots: the order of LayerSlot.
class LayerBlock : public Block {
 public:
  enum LayerSlot {
    kQuery,
    kKey,
    kValue,
    kOutput,
    kQueryNorm,
    kKeyNorm,
    kGate,
    kUp,
    kDown,
    kInputNorm,
    kPostAttentionNorm,
    kPreFeedForwardNorm,
    kPostFeedForwardNorm,
    kSlotCount
  };

  LayerBlock(int64_t index, std::vector<int64_t> slots, const Gemma3Config& config)
      : slots_(std::move(slots)),
        name_(absl::StrCat("layer.", index)),
        index_(index),
        kind_(config.local[static_cast<size_t>(index)] ? kLocalKind : kGlobalKind),
        head_dim_(config.head_dim),
        eps_(config.norm_eps),
        scale_(config.score_scale) {}
  const std::vector<int64_t>& slots() const override { return slots_; }
  std::string name() const override { return name_; }

  Activations Forward(const Activations& input, const SlotView& p,
                      const SequenceInputs& inputs) const override {
    const at::Tensor attended = Attention(Norm(input.x_TD, p[kInputNorm]), p, inputs);
    const at::Tensor x_TD = at::add(input.x_TD, Norm(attended, p[kPostAttentionNorm]));
    const at::Tensor fed = FeedForward(Norm(x_TD, p[kPreFeedForwardNorm]), p);
    return {at::add(x_TD, Norm(fed, p[kPostFeedForwardNorm]))};
  }

 private:
  at::Tensor Norm(const at::Tensor& x, const at::Tensor& weight) const {
    return RmsNorm(x, weight, eps_, NormStyle::kGemma);
  }

  at::Tensor Attention(const at::Tensor& x_TD, const SlotView& p,
                       const SequenceInputs& inputs) const {
    const int64_t length = x_TD.size(0);
    const auto heads = [&](const at::Tensor& weight) {
      return at::linear(x_TD, weight).view({length, -1, head_dim_});
    };
    const RopeTables& tables = inputs.ropes[kind_];
    const at::Tensor q_THD = ApplyRope(Norm(heads(p[kQuery]), p[kQueryNorm]), tables);
    KeysValues seen{ApplyRope(Norm(heads(p[kKey]), p[kKeyNorm]), tables), heads(p[kValue])};
    if (inputs.cache != nullptr) seen = inputs.cache->Extend(index_, kind_, seen);
    const at::Tensor out_THD =
        IntervalAttention(q_THD, seen.k_SHD, seen.v_SHD, inputs.masks[kind_], {.scale = scale_});
    return at::linear(out_THD.reshape({length, -1}), p[kOutput]);
  }

  static at::Tensor FeedForward(const at::Tensor& x_TD, const SlotView& p) {
    const at::Tensor gate = at::gelu(at::linear(x_TD, p[kGate]), "tanh");
    return at::linear(at::mul(gate, at::linear(x_TD, p[kUp])), p[kDown]);
  }

  std::vector<int64_t> slots_;
  std::string name_;
  int64_t index_;
  size_t kind_;
  int64_t head_dim_;
  double eps_, scale_;
};

// slots: norm [D].
class FinalNormBlock : public Block {
 public:
  FinalNormBlock(int64_t slot, double eps) : slots_{slot}, eps_(eps) {}
  const std::vector<int64_t>& slots() const override { return slots_; }
  std::string name() const override { return "final_norm"; }
  Activations Forward(const Activations& input, const SlotView& parameters,
                      const SequenceInputs&) const override {
    return {RmsNorm(input.x_TD, parameters[0], eps_, NormStyle::kGemma)};
  }

 private:
  std::vector<int64_t> slots_;
  double eps_;
};

// Names in the order of LayerSlot.
std::vector<int64_t> DeclareLayer(ParameterStore& store, const Gemma3Config& c, int64_t index) {
  const int64_t query = c.heads * c.head_dim, key = c.key_value_heads * c.head_dim;
  const std::vector<std::pair<std::string, std::vector<int64_t>>> parameters = {
      {"self_attn.q_proj", {query, c.hidden_size}},
      {"self_attn.k_proj", {key, c.hidden_size}},
      {"self_attn.v_proj", {key, c.hidden_size}},
      {"self_attn.o_proj", {c.hidden_size, query}},
      {"self_attn.q_norm", {c.head_dim}},
      {"self_attn.k_norm", {c.head_dim}},
      {"mlp.gate_proj", {c.intermediate_size, c.hidden_size}},
      {"mlp.up_proj", {c.intermediate_size, c.hidden_size}},
      {"mlp.down_proj", {c.hidden_size, c.intermediate_size}},
      {"input_layernorm", {c.hidden_size}},
      {"post_attention_layernorm", {c.hidden_size}},
      {"pre_feedforward_layernorm", {c.hidden_size}},
      {"post_feedforward_layernorm", {c.hidden_size}},
  };
  std::vector<int64_t> slots;
  for (const auto& [name, shape] : parameters) {
    slots.push_back(
        store.Declare(absl::StrCat("model.layers.", index, ".", name, ".weight"), shape));
  }
  return slots;
}

Model BuildGemma3(const Gemma3Config& c, ParameterStore& store) {
  Model model;
  model.vocab_size = c.vocab_size;
  model.hidden_size = c.hidden_size;
  model.max_positions = c.max_positions;
  model.head_dim = c.head_dim;
  model.layer_kinds = {{.window = std::nullopt, .rope = c.global_rope},
                       {.window = c.window, .rope = c.local_rope}};
  const int64_t embedding =
      store.Declare("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  model.blocks.push_back(std::make_unique<EmbeddingBlock>(embedding, c.hidden_size));
  for (int64_t i = 0; i < c.layers; ++i) {
    model.blocks.push_back(std::make_unique<LayerBlock>(i, DeclareLayer(store, c, i), c));
  }
  const int64_t norm = store.Declare("model.norm.weight", {c.hidden_size});
  model.blocks.push_back(std::make_unique<FinalNormBlock>(norm, c.norm_eps));
  model.head_slot =
      c.tied_head ? embedding : store.Declare("lm_head.weight", {c.vocab_size, c.hidden_size});
  return model;
}

}  // namespace

std::optional<std::string> Gemma3CanonicalName(std::string_view tensor, bool tied_head) {
  std::string_view name = tensor;
  const auto consume = [&name](std::string_view prefix) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  };
  consume("model.");
  if (name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector."))
    return std::nullopt;
  consume("language_model.");
  consume("model.");
  if (name != "lm_head.weight") return "model." + std::string(name);
  return tied_head ? "model.embed_tokens.weight" : "lm_head.weight";
}

ModelSpec MakeGemma3Spec(const Gemma3Config& config) {
  ModelSpec spec;
  spec.family = "gemma3_text";
  spec.vocab_size = config.vocab_size;
  spec.build = [config](ParameterStore& store) { return BuildGemma3(config, store); };
  spec.canonical_name = [tied = config.tied_head](std::string_view tensor) {
    return Gemma3CanonicalName(tensor, tied);
  };
  spec.init = [range = config.initializer_range](std::string_view name) -> ModelSpec::Init {
    // Norms multiply by 1 + w, so that 0 is the identity.
    return {.std = name.ends_with("norm.weight") ? 0 : range, .constant = 0};
  };
  return spec;
}

}  // namespace osler
