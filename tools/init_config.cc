#include "tools/init_config.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace osler {
namespace {

using nlohmann::ordered_json;

// A special token: its text in the family's tokenizers, and its id where no tokenizer says it.
struct Special {
  const char* text;
  int32_t id = -1;
};

ordered_json GemmaKeys(const InitFlags& f);
ordered_json LlamaKeys(const InitFlags& f);
ordered_json Qwen2Keys(const InitFlags& f);
ordered_json Qwen3Keys(const InitFlags& f);

struct Family {
  const char* name;
  const char* architecture;
  const char* model_type;
  double norm_eps;
  ordered_json (*keys)(const InitFlags& flags);  // those that not every family has
  Special bos, eos, pad, end_of_turn;
};
constexpr Family kFamilies[] = {
    {"gemma3",
     "Gemma3ForCausalLM",
     "gemma3_text",
     1e-6,
     GemmaKeys,
     {"<bos>", 2},
     {"<eos>", 1},
     {"<pad>", 0},
     {"<end_of_turn>"}},
    {"llama",
     "LlamaForCausalLM",
     "llama",
     1e-5,
     LlamaKeys,
     {"<|begin_of_text|>"},
     {"<|end_of_text|>"},
     {"<|finetune_right_pad_id|>"},
     {"<|eot_id|>"}},
    {"qwen2",
     "Qwen2ForCausalLM",
     "qwen2",
     1e-6,
     Qwen2Keys,
     {"<|endoftext|>"},
     {"<|endoftext|>"},
     {"<|endoftext|>"},
     {"<|im_end|>"}},
    {"qwen3",
     "Qwen3ForCausalLM",
     "qwen3",
     1e-6,
     Qwen3Keys,
     {"<|endoftext|>"},
     {"<|endoftext|>"},
     {"<|endoftext|>"},
     {"<|im_end|>"}},
};

const Family& FamilyOf(const std::string& name) {
  const auto* found = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                   [&](const Family& family) { return family.name == name; });
  OSLER_CHECK(found != std::end(kFamilies));
  return *found;
}

ordered_json Rope(double theta) { return {{"rope_theta", theta}, {"rope_type", "default"}}; }

ordered_json GemmaKeys(const InitFlags& f) {
  const int64_t every = f.global_every.value_or(kInitGlobalEvery);
  std::vector<std::string> kinds;
  for (int64_t i = 1; i <= f.layers; ++i)
    kinds.push_back(i % every == 0 ? "full_attention" : "sliding_attention");
  return {{"attention_bias", false},
          {"attn_logit_softcapping", nullptr},
          {"final_logit_softcapping", nullptr},
          {"hidden_activation", "gelu_pytorch_tanh"},
          {"layer_types", kinds},
          {"query_pre_attn_scalar", f.head_dim},
          {"rope_parameters", {{"full_attention", Rope(1e6)}, {"sliding_attention", Rope(1e4)}}},
          {"sliding_window", f.sliding_window.value_or(kInitWindow)},
          {"use_bidirectional_attention", false}};
}

ordered_json LlamaKeys(const InitFlags&) {
  return {{"attention_bias", false},
          {"hidden_act", "silu"},
          {"mlp_bias", false},
          {"rope_parameters", Rope(5e5)}};
}

std::vector<std::string> AllGlobal(int64_t layers) {
  return std::vector<std::string>(static_cast<size_t>(layers), "full_attention");
}

ordered_json Qwen2Keys(const InitFlags& f) {
  return {{"hidden_act", "silu"},          {"layer_types", AllGlobal(f.layers)},
          {"max_window_layers", f.layers}, {"rope_parameters", Rope(1e6)},
          {"sliding_window", nullptr},     {"use_sliding_window", false}};
}

ordered_json Qwen3Keys(const InitFlags& f) {
  ordered_json keys = Qwen2Keys(f);
  keys["attention_bias"] = false;
  return keys;
}

ordered_json IdOrNull(int32_t id) { return id < 0 ? ordered_json() : ordered_json(id); }

}  // namespace

std::vector<std::string> InitFamilies() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.name);
  return names;
}

SpecialIds FindSpecialIds(const std::string& family, const Tokenizer* tokenizer) {
  const auto id_of = [tokenizer](const Special& special) {
    const int32_t id = tokenizer == nullptr ? -1 : tokenizer->IdOf(special.text);
    return id < 0 ? special.id : id;
  };
  const Family& f = FamilyOf(family);
  return {.bos = id_of(f.bos),
          .eos = id_of(f.eos),
          .pad = id_of(f.pad),
          .end_of_turn = id_of(f.end_of_turn)};
}

ordered_json InitConfig(const InitFlags& f, const SpecialIds& ids) {
  const Family& family = FamilyOf(f.family);
  ordered_json config = {{"architectures", {family.architecture}},
                         {"attention_dropout", 0.0},
                         {"bos_token_id", IdOrNull(ids.bos)},
                         {"dtype", f.dtype == "bf16" ? "bfloat16" : "float32"},
                         {"eos_token_id", IdOrNull(ids.eos)},
                         {"head_dim", f.head_dim},
                         {"hidden_size", f.hidden_size},
                         {"initializer_range", 0.02},
                         {"intermediate_size", f.intermediate_size},
                         {"max_position_embeddings", f.max_positions},
                         {"model_type", family.model_type},
                         {"num_attention_heads", f.heads},
                         {"num_hidden_layers", f.layers},
                         {"num_key_value_heads", f.kv_heads},
                         {"pad_token_id", IdOrNull(ids.pad)},
                         {"rms_norm_eps", family.norm_eps},
                         {"tie_word_embeddings", !f.untied},
                         {"use_cache", true},
                         {"vocab_size", f.vocab_size}};
  config.update(family.keys(f));
  return config;
}

ordered_json InitGenerationConfig(const SpecialIds& ids) {
  ordered_json config;
  if (ids.bos >= 0) config["bos_token_id"] = ids.bos;
  // Chat models end an answer with their turn, not with the end of the text.
  if (ids.eos >= 0) config["eos_token_id"] = ids.eos;
  if (ids.end_of_turn >= 0) {
    config["eos_token_id"] =
        ids.eos < 0 ? ordered_json(ids.end_of_turn) : ordered_json({ids.eos, ids.end_of_turn});
  }
  if (ids.pad >= 0) config["pad_token_id"] = ids.pad;
  return config.is_null() ? ordered_json::object() : config;
}

}  // namespace osler
