#include "model/decoder/decoder.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/rms_norm.h"
#include "model/decoder/decoder_layer.h"
#include "parallel/tensor.h"

namespace osler {
namespace {

constexpr char kEmbedding[] = "model.embed_tokens.weight", kFinalNorm[] = "model.norm.weight",
               kHead[] = "lm_head.weight";

// The tokens' rows of the embedding. With a tensor axis weight_VD is a rank's slice of the rows, in
// rank order: each token's row is one rank's, zero on the others.
at::Tensor LookUp(const at::Tensor& weight_VD, const at::Tensor& tokens_T, Communicator* tensor) {
  const auto rows_of = [&weight_VD](const at::Tensor& ids) {
    return at::embedding(weight_VD, ids, /*padding_idx=*/-1, /*scale_grad_by_freq=*/false,
                         /*sparse=*/true);
  };
  if (tensor == nullptr || tensor->size() == 1) return rows_of(tokens_T);
  const at::Tensor ids_T = at::sub(tokens_T, tensor->rank() * weight_VD.size(0));
  const at::Tensor own_N =
      at::nonzero(at::logical_and(at::ge(ids_T, 0), at::lt(ids_T, weight_VD.size(0)))).squeeze(1);
  const at::Tensor rows_ND = rows_of(at::index_select(ids_T, 0, own_N));
  const at::Tensor zeros_TD =
      at::zeros({tokens_T.size(0), weight_VD.size(1)}, weight_VD.options().requires_grad(false));
  return ScatterSum(tensor, at::index_copy(zeros_TD, 0, own_N, rows_ND));
}

// slots: embed_tokens [V, D].
class EmbeddingBlock final : public Block {
 public:
  EmbeddingBlock(int64_t slot, const DecoderConfig& config)
      : slots_{slot}, hidden_size_(config.hidden_size), scaled_(config.scaled_embedding) {}
  const std::vector<int64_t>& slots() const override { return slots_; }
  std::string name() const override { return "embedding"; }

  Activations Forward(const Activations&, const SlotView& parameters, const SequenceInputs& inputs,
                      BlockMemo*) const override {
    const at::Tensor& weight_VD = parameters[0];
    const at::Tensor rows_TD = LookUp(weight_VD, inputs.tokens_T, inputs.tensor);
    if (!scaled_) return {rows_TD};
    // The released weights were trained with a scale rounded to their dtype.
    const double scale = at::scalar_tensor(std::sqrt(static_cast<float>(hidden_size_)), at::kFloat)
                             .to(weight_VD.scalar_type())
                             .item<double>();
    return {at::mul(rows_TD, scale)};
  }

 private:
  std::vector<int64_t> slots_;
  int64_t hidden_size_;
  bool scaled_;
};

// slots: norm [D].
class FinalNormBlock final : public Block {
 public:
  FinalNormBlock(int64_t slot, const DecoderConfig& config)
      : slots_{slot}, eps_(config.norm_eps), style_(config.norm_style) {}
  const std::vector<int64_t>& slots() const override { return slots_; }
  std::string name() const override { return "final_norm"; }
  Activations Forward(const Activations& input, const SlotView& parameters, const SequenceInputs&,
                      BlockMemo*) const override {
    return {RmsNorm(input.x_TD, parameters[0], eps_, style_)};
  }

 private:
  std::vector<int64_t> slots_;
  double eps_;
  NormStyle style_;
};

struct RoleFacts {
  std::vector<int64_t> shape;
  Split split = Split::kReplicated;
  int64_t unit = 1;
};

RoleFacts FactsOf(LayerRole role, const DecoderConfig& c) {
  const int64_t query = c.heads * c.head_dim, key = c.key_value_heads * c.head_dim;
  switch (role) {
    case LayerRole::kQuery: return {{query, c.hidden_size}, Split::kColumn, c.head_dim};
    case LayerRole::kKey:
    case LayerRole::kValue: return {{key, c.hidden_size}, Split::kColumn, c.head_dim};
    case LayerRole::kOutput: return {{c.hidden_size, query}, Split::kRow, c.head_dim};
    case LayerRole::kQueryBias: return {{query}, Split::kColumn, c.head_dim};
    case LayerRole::kKeyBias:
    case LayerRole::kValueBias: return {{key}, Split::kColumn, c.head_dim};
    case LayerRole::kQueryNorm:
    case LayerRole::kKeyNorm: return {{c.head_dim}};
    case LayerRole::kGate:
    case LayerRole::kUp: return {{c.intermediate_size, c.hidden_size}, Split::kColumn};
    case LayerRole::kDown: return {{c.hidden_size, c.intermediate_size}, Split::kRow};
    case LayerRole::kInputNorm:
    case LayerRole::kPostAttentionNorm:
    case LayerRole::kPreFeedForwardNorm:
    case LayerRole::kPostFeedForwardNorm: return {{c.hidden_size}};
  }
  return {};
}

std::vector<int64_t> DeclareLayer(ParameterStore& store, const DecoderConfig& config,
                                  int64_t index) {
  std::vector<int64_t> slots;
  for (const auto& [role, name] : config.layer_names) {
    slots.push_back(store.Declare(absl::StrCat("model.layers.", index, ".", name),
                                  FactsOf(role, config).shape));
  }
  return slots;
}

Model Build(const DecoderConfig& c, ParameterStore& store) {
  Model model;
  model.vocab_size = c.vocab_size;
  model.hidden_size = c.hidden_size;
  model.max_positions = c.max_positions;
  model.head_dim = c.head_dim;
  model.layer_kinds = c.kinds;
  for (const size_t kind : c.kind_of_layer) ++model.layer_kinds[kind].layers;
  const int64_t embedding = store.Declare(kEmbedding, {c.vocab_size, c.hidden_size});
  model.blocks.push_back(std::make_unique<EmbeddingBlock>(embedding, c));
  for (int64_t i = 0; i < c.layers; ++i)
    model.blocks.push_back(std::make_unique<DecoderLayer>(i, DeclareLayer(store, c, i), c));
  const int64_t norm = store.Declare(kFinalNorm, {c.hidden_size});
  model.blocks.push_back(std::make_unique<FinalNormBlock>(norm, c));
  model.head_slot = c.tied_head ? embedding : store.Declare(kHead, {c.vocab_size, c.hidden_size});
  const int64_t pair = 2 * c.heads * c.head_dim, head = c.vocab_size * c.hidden_size;
  model.head_cost = head / pair;
  model.token_cost = (store.parameter_count() - (c.tied_head ? 1 : 2) * head) / pair;
  return model;
}

PlacementRules Placements(const DecoderConfig& config) {
  PlacementRules rules = {{kEmbedding, Split::kVocabulary}, {kFinalNorm, Split::kReplicated}};
  if (!config.tied_head) rules.push_back({kHead, Split::kVocabulary});
  for (const auto& [role, name] : config.layer_names) {
    const RoleFacts facts = FactsOf(role, config);
    rules.push_back({absl::StrCat("model.layers.*.", name), facts.split, facts.unit});
  }
  return rules;
}

std::optional<std::string> CanonicalName(std::string_view tensor, const CheckpointNames& names,
                                         bool tied_head) {
  // Old files carry RoPE's frequencies, which follow from config.json.
  if (tensor.ends_with(".rotary_emb.inv_freq")) return std::nullopt;
  for (const std::string& beginning : names.ignored) {
    if (tensor.starts_with(beginning)) return std::nullopt;
  }
  for (const std::string& head : names.heads) {
    if (tensor == head) return tied_head ? kEmbedding : kHead;
  }
  for (const std::string& prefix : names.prefixes) {
    if (tensor.starts_with(prefix))
      return absl::StrCat("model.", std::string(tensor.substr(prefix.size())));
  }
  return std::string(tensor);
}

// Norms start as the identity, biases at 0.
ModelSpec::Init InitOf(std::string_view name, double range, NormStyle style) {
  if (name.ends_with("norm.weight"))
    return {.std = 0, .constant = style == NormStyle::kGemma ? 0.0 : 1.0};
  return {.std = name.ends_with(".bias") ? 0 : range, .constant = 0};
}

}  // namespace

ModelSpec MakeDecoderSpec(const DecoderConfig& config) {
  ModelSpec spec;
  spec.family = config.family;
  spec.vocab_size = config.vocab_size;
  spec.intermediate_size = config.intermediate_size;
  spec.layers = config.layers;
  spec.heads = config.heads;
  spec.key_value_heads = config.key_value_heads;
  spec.build = [config](ParameterStore& store) { return Build(config, store); };
  spec.placements = Placements(config);
  spec.canonical_name = [names = config.checkpoint_names, tied = config.tied_head](
                            std::string_view tensor) { return CanonicalName(tensor, names, tied); };
  spec.init = [range = config.initializer_range, style = config.norm_style](std::string_view name) {
    return InitOf(name, range, style);
  };
  return spec;
}

}  // namespace osler
