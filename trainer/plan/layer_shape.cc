#include "trainer/plan/layer_shape.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"

namespace osler {
namespace {

constexpr std::array<std::string_view, 7> kMatrices{"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                    "gate_proj", "up_proj", "down_proj"};
const std::set<std::string>& Vectors() {
  static const auto* const names = new std::set<std::string>{"q_proj.bias",
                                                             "k_proj.bias",
                                                             "v_proj.bias",
                                                             "q_norm.weight",
                                                             "k_norm.weight",
                                                             "input_layernorm.weight",
                                                             "post_attention_layernorm.weight",
                                                             "pre_feedforward_layernorm.weight",
                                                             "post_feedforward_layernorm.weight"};
  return *names;
}

// "model.layers.3.self_attn.q_proj.weight" → "q_proj.weight".
std::string LastTwoParts(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '.');
  return absl::StrJoin(parts.end() - std::min<std::ptrdiff_t>(2, std::ssize(parts)), parts.end(),
                       ".");
}

}  // namespace

int64_t LayerShape::matrix_elements() const {
  int64_t sum = 0;
  for (const auto& [name, elements] : matrices) sum += elements;
  return sum;
}

bool IsLayer(const Block& block) { return block.name().starts_with("layer."); }

absl::StatusOr<LayerShape> LayerShapeOf(const Block& layer, const ParameterStore& store,
                                        int64_t head_dim) {
  LayerShape shape;
  for (const int64_t slot : layer.slots()) {
    const std::string name = LastTwoParts(store.slot(slot).name);
    const std::vector<int64_t> local = store.LocalShape(slot);
    const std::string role = name.substr(0, name.find('.'));
    const bool matrix = local.size() == 2 && name.ends_with(".weight") &&
                        std::find(kMatrices.begin(), kMatrices.end(), role) != kMatrices.end();
    if (!matrix && !Vectors().contains(name)) {
      return MakeError(ExitCode::kBug, absl::StrCat("osler plan does not know what parameter ",
                                                    store.slot(slot).name, " does"));
    }
    if (!matrix) {
      shape.vectors += store.LocalCount(slot);
      shape.head_norms = shape.head_norms || name == "q_norm.weight";
      shape.output_norms = shape.output_norms || name == "pre_feedforward_layernorm.weight";
      continue;
    }
    shape.matrices[role] = store.LocalCount(slot);
    if (role == "q_proj") shape.query = local[0], shape.hidden = local[1];
    if (role == "k_proj") shape.key = local[0];
    if (role == "gate_proj") shape.inner = local[0];
  }
  shape.query_heads = shape.query / head_dim;
  shape.key_heads = shape.key / head_dim;
  return shape;
}

}  // namespace osler
