#include "trainer/verify/tiny_model.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "model/config_reader.h"

namespace osler {
namespace {

using nlohmann::json;

// Layouts cut heads, MLP and vocabulary in four and layers in two stages of two chunks; none of the
// sizes is a power of two, so that parts along the shard axis fall in the middle of rows.
constexpr int64_t kTensorParts = 4;
constexpr int64_t kHidden = 24, kIntermediate = 44, kVocabulary = 68, kLayers = 5, kHeadDim = 8;
constexpr int64_t kWindow = 7, kPositions = 256;
constexpr int64_t kMostSharedQueries = 8;

struct Heads {
  int64_t queries, keys;
};

// Keeps the number of query heads to a key head, one key head as one, and a head each as that. Two
// key heads where possible: four tensor ranks then share them.
Heads TinyHeads(const json& text) {
  const auto number = [&](const char* key, int64_t fallback) {
    const auto found = text.find(key);
    return found != text.end() && found->is_number_integer() ? found->get<int64_t>() : fallback;
  };
  const int64_t queries = std::max<int64_t>(number("num_attention_heads", 8), 1);
  const int64_t keys = std::clamp<int64_t>(number("num_key_value_heads", queries), 1, queries);
  const int64_t group = std::min(queries / keys, kMostSharedQueries);
  if (group == 1) return {kTensorParts, kTensorParts};
  if (keys == 1) return {kTensorParts, 1};
  const int64_t few = 2 * group % kTensorParts == 0 ? 2 : kTensorParts;
  return {few * group, few};
}

// The kinds of layers the model has, taking turns.
json TinyLayerTypes(const json& types) {
  std::vector<json> kinds;
  for (const json& type : types) {
    if (std::find(kinds.begin(), kinds.end(), type) == kinds.end()) kinds.push_back(type);
  }
  json tiny = json::array();
  for (size_t i = 0; i < kLayers && !kinds.empty(); ++i) tiny.push_back(kinds[i % kinds.size()]);
  return tiny;
}

void Shrink(json& text) {
  const Heads heads = TinyHeads(text);
  const auto set_if_there = [&](const char* key, const json& value) {
    if (text.contains(key) && !text[key].is_null()) text[key] = value;
  };
  text["vocab_size"] = kVocabulary;
  // Llama's configuration wants a width that its heads divide.
  text["hidden_size"] = (kHidden + heads.queries - 1) / heads.queries * heads.queries;
  text["intermediate_size"] = kIntermediate;
  text["num_hidden_layers"] = kLayers;
  text["num_attention_heads"] = heads.queries;
  text["num_key_value_heads"] = heads.keys;
  text["head_dim"] = kHeadDim;
  text["max_position_embeddings"] = kPositions;
  set_if_there("query_pre_attn_scalar", kHeadDim);
  set_if_there("sliding_window", kWindow);
  set_if_there("sliding_window_pattern", 2);
  set_if_there("max_window_layers", kLayers / 2);
  if (text.contains("layer_types")) text["layer_types"] = TinyLayerTypes(text["layer_types"]);
}

}  // namespace

absl::StatusOr<std::string> TinyConfig(std::string_view config_json, const std::string& name) {
  OSLER_RETURN_IF_ERROR(ParseModelSpec(config_json, name).status());
  OSLER_ASSIGN_OR_RETURN(json config, ParseConfigJson(config_json, name));
  json& text = config.contains("text_config") ? config["text_config"] : config;
  Shrink(text);
  return config.dump(2);
}

std::map<std::string, at::Tensor> DrawParameters(const ModelSpec& spec, uint64_t seed) {
  ParameterStore store;
  spec.build(store);
  std::map<std::string, at::Tensor> values;
  for (const ParameterSlot& slot : store.slots()) {
    const ModelSpec::Init init = spec.init(slot.name);
    // Matrices keep the scale of what goes through them; norms and biases vary about their start.
    const double std =
        slot.shape.size() == 2 ? 1 / std::sqrt(static_cast<double>(slot.shape[1])) : 0.2;
    const double mean = init.std == 0 ? init.constant : 0;
    at::Tensor value = at::empty(slot.shape, at::kDouble);
    const uint64_t key = PhiloxKey(seed, absl::StrCat("verify/", slot.name));
    auto* x = value.mutable_data_ptr<double>();
    for (int64_t i = 0; i < value.numel(); ++i)
      x[i] = mean + std * PhiloxNormal(key, static_cast<uint64_t>(i));
    values.emplace(slot.name, std::move(value));
  }
  return values;
}

}  // namespace osler
