#include "model/registry.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;

json TextConfig() {
  return {{"architectures", {"Gemma3ForCausalLM"}},
          {"model_type", "gemma3_text"},
          {"vocab_size", 32},
          {"hidden_size", 12},
          {"intermediate_size", 20},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 8},
          {"sliding_window", 16}};
}

absl::StatusOr<ModelSpec> Parse(const json& config) {
  return ParseModelSpec(config.dump(), "DIR/config.json");
}

json FamilyConfig(const std::string& model_type) {
  if (model_type == "gemma3_text") return TextConfig();
  return {{"model_type", model_type}, {"vocab_size", 32},       {"hidden_size", 32},
          {"intermediate_size", 20},  {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"head_dim", 8}};
}

// The model and its store, which must outlive it.
struct Built {
  ParameterStore store;
  Model model;
};
Built Build(const json& config) {
  const auto spec = Parse(config);
  EXPECT_THAT(spec, IsOk());
  Built built;
  if (spec.ok()) built.model = spec->build(built.store);
  return built;
}

TEST(Registry, BuildsBlocksOverNamedSlots) {
  const Built built = Build(TextConfig());
  ASSERT_EQ(built.model.blocks.size(), 5U);
  EXPECT_EQ(built.model.blocks[0]->name(), "embedding");
  EXPECT_EQ(built.model.blocks[2]->name(), "layer.1");
  EXPECT_EQ(built.model.blocks[4]->name(), "final_norm");
  EXPECT_EQ(built.store.slots().size(), 2 + 3 * 13U);
  EXPECT_EQ(built.model.head_slot, 0);  // tied by default
  EXPECT_EQ(built.store.slot(0).name, "model.embed_tokens.weight");
  const int64_t value = built.store.Find("model.layers.2.self_attn.v_proj.weight");
  ASSERT_GE(value, 0);
  EXPECT_EQ(built.store.slot(value).shape, (std::vector<int64_t>{16, 12}));
  EXPECT_EQ(built.store.Find("lm_head.weight"), -1);
  int64_t seen = 0;
  for (const auto& block : built.model.blocks) seen += static_cast<int64_t>(block->slots().size());
  EXPECT_EQ(seen, static_cast<int64_t>(built.store.slots().size()));
}

TEST(Registry, UntiedHeadIsItsOwnSlot) {
  json config = TextConfig();
  config["tie_word_embeddings"] = false;
  const Built built = Build(config);
  EXPECT_EQ(built.model.head_slot, built.store.Find("lm_head.weight"));
  EXPECT_EQ(built.store.slot(built.model.head_slot).shape, (std::vector<int64_t>{32, 12}));
}

TEST(Registry, BothRopeSpellings) {
  json old = TextConfig();
  old["rope_theta"] = 5e5;
  old["rope_local_base_freq"] = 300;
  old["rope_scaling"] = {{"type", "linear"}, {"factor", 8}};
  json current = TextConfig();
  current["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 5e5}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 300.0}}}};
  for (const json& config : {old, current}) {
    const Built built = Build(config);
    ASSERT_EQ(built.model.layer_kinds.size(), 2U);
    EXPECT_EQ(built.model.layer_kinds[0].rope.theta, 5e5);
    EXPECT_EQ(built.model.layer_kinds[0].rope.factor, 8);
    EXPECT_EQ(built.model.layer_kinds[0].window, std::nullopt);
    EXPECT_EQ(built.model.layer_kinds[1].rope.theta, 300);
    EXPECT_EQ(built.model.layer_kinds[1].rope.factor, 1);
    EXPECT_EQ(built.model.layer_kinds[1].window, 16);
  }
}

TEST(Registry, MultimodalConfigGivesTheTextModel) {
  json text = TextConfig();
  text.erase("architectures");
  const json config = {{"architectures", {"Gemma3ForConditionalGeneration"}},
                       {"model_type", "gemma3"},
                       {"text_config", text},
                       {"vision_config", {{"hidden_size", 1152}}}};
  EXPECT_EQ(Build(config).store.slots().size(), 2 + 3 * 13U);
  json untied = config;
  untied["tie_word_embeddings"] = false;
  EXPECT_GE(Build(untied).store.Find("lm_head.weight"), 0);
}

TEST(Registry, EverySpellingOfTensorNames) {
  for (const bool tied : {true, false}) {
    json config = TextConfig();
    config["tie_word_embeddings"] = tied;
    ASSERT_OK_AND_ASSIGN(const ModelSpec spec, Parse(config));
    const std::string layer = "layers.7.self_attn.q_proj.weight";
    for (const char* prefix : {"model.", "language_model.model.", "model.language_model."}) {
      EXPECT_EQ(spec.canonical_name(prefix + layer), "model." + layer);
      EXPECT_EQ(spec.canonical_name(std::string(prefix) + "embed_tokens.weight"),
                "model.embed_tokens.weight");
      EXPECT_EQ(spec.canonical_name(std::string(prefix) + "norm.weight"), "model.norm.weight");
    }
    for (const char* head : {"lm_head.weight", "language_model.lm_head.weight"}) {
      EXPECT_EQ(spec.canonical_name(head), tied ? "model.embed_tokens.weight" : "lm_head.weight");
    }
    for (const char* vision : {"vision_tower.vision_model.encoder.layers.0.layer_norm1.weight",
                               "vision_tower.embeddings.patch_embedding.bias",
                               "model.vision_tower.vision_model.post_layernorm.weight",
                               "model.vision_tower.post_layernorm.weight",
                               "multi_modal_projector.mm_input_projection_weight",
                               "model.multi_modal_projector.mm_soft_emb_norm.weight"}) {
      EXPECT_EQ(spec.canonical_name(vision), std::nullopt) << vision;
    }
  }
}

TEST(Registry, UnknownArchitectureNamesWhatIsSupported) {
  json config = TextConfig();
  config["architectures"] = {"MistralForCausalLM"};
  EXPECT_THAT(Parse(config), Fails(ExitCode::kConfig, AllOf(HasSubstr("DIR/config.json"),
                                                            HasSubstr("MistralForCausalLM"),
                                                            HasSubstr("Gemma3ForCausalLM"))));
  EXPECT_THAT(Parse(json::object()),
              Fails(ExitCode::kConfig, HasSubstr("Gemma3ForConditionalGeneration")));
}

TEST(Registry, ArchitectureMayBeLeftToModelType) {
  json config = TextConfig();
  config.erase("architectures");
  EXPECT_THAT(Parse(config), IsOk());
  config["architectures"] = nullptr;
  EXPECT_THAT(Parse(config), IsOk());
}

// Each value alone makes the configuration unusable, and the message names the key.
TEST(Registry, RefusesWhatItCannotCompute) {
  const std::vector<std::pair<std::string, json>> bad = {
      {"vocab_size", 0},
      {"vocab_size", 1e30},
      {"vocab_size", 18446744073709551615ULL},
      {"vocab_size", "many"},
      {"hidden_size", -4},
      {"hidden_size", 12.5},
      {"hidden_size", 1 << 28},
      {"intermediate_size", 0},
      {"num_hidden_layers", 0},
      {"num_hidden_layers", 1000000},
      {"num_attention_heads", 0},
      {"num_attention_heads", 3},
      {"num_key_value_heads", 0},
      {"head_dim", 4},
      {"head_dim", 12},
      {"head_dim", 264},
      {"head_dim", 0},
      {"sliding_window", 0},
      {"sliding_window_pattern", 0},
      {"max_position_embeddings", 0},
      {"query_pre_attn_scalar", 0},
      {"query_pre_attn_scalar", -1},
      {"rms_norm_eps", 0},
      {"rms_norm_eps", "small"},
      {"initializer_range", -1},
      {"hidden_activation", "silu"},
      {"hidden_activation", 3},
      {"attention_bias", true},
      {"attention_bias", "no"},
      {"attention_dropout", 0.1},
      {"use_bidirectional_attention", true},
      {"final_logit_softcapping", 30.0},
      {"attn_logit_softcapping", 50},
      {"layer_types", {"full_attention"}},
      {"layer_types", {"full_attention", "full_attention", "chunked_attention"}},
      {"layer_types", "full_attention"},
      {"layer_types", {1, 2, 3}},
      {"rope_theta", 0},
      {"rope_theta", "1e6"},
      {"rope_local_base_freq", -1},
      {"rope_scaling", {{"rope_type", "longrope"}, {"factor", 4}}},
      {"rope_scaling", {{"rope_type", "linear"}}},
      {"rope_scaling", {{"rope_type", "linear"}, {"factor", 0}}},
      {"rope_scaling", "linear"},
      {"rope_parameters", {{"rope_type", "linear"}, {"factor", 8}}},
      {"rope_parameters", {{"full_attention", {{"rope_type", "llama3"}}}}},
      {"rope_parameters", {{"full_attention", {{"partial_rotary_factor", 0.5}}}}},
      {"rope_parameters", {{"full_attention", 3}}},
      {"tie_word_embeddings", "yes"},
      {"model_type", 3},
      {"architectures", "Gemma3ForCausalLM"}};
  for (const auto& [key, value] : bad) {
    json config = TextConfig();
    config[key] = value;
    EXPECT_THAT(Parse(config),
                Fails(ExitCode::kConfig, AllOf(HasSubstr("DIR/config.json: "), HasSubstr(key))))
        << config[key];
  }
}

// Beyond what all families share: each value alone is refused by the families named.
TEST(Registry, FamiliesRefuseWhatTheyCannotCompute) {
  const json ramp = {{"rope_type", "llama3"},
                     {"factor", 8},
                     {"low_freq_factor", 1},
                     {"high_freq_factor", 4},
                     {"rope_theta", 5e5}};
  const auto without = [&ramp](const char* key) {
    json changed = ramp;
    changed.erase(key);
    return changed;
  };
  const auto yarn = [](const char* key, const json& value) {
    return json{{"rope_type", "yarn"}, {"factor", 4}, {key, value}};
  };
  json flat = ramp, negative = ramp;
  flat["high_freq_factor"] = 1;
  negative["original_max_position_embeddings"] = -1;
  const std::vector<std::tuple<std::string, json, std::string>> bad = {
      {"attention_bias", true, "llama qwen3"},
      {"mlp_bias", true, "llama"},
      {"hidden_act", "gelu", "llama qwen2 qwen3"},
      {"attention_dropout", 0.1, "llama qwen2 qwen3"},
      {"partial_rotary_factor", 0.5, "llama qwen2 qwen3"},
      {"quantization_config", {{"quant_method", "bnb"}}, "gemma3_text llama qwen2 qwen3"},
      {"num_key_value_heads", 3, "llama qwen2 qwen3"},
      {"head_dim", 12, "llama qwen2 qwen3"},
      {"hidden_size", 33, "llama"},
      {"rope_scaling", {{"type", "dynamic"}, {"factor", 4}}, "llama qwen2 qwen3"},
      {"rope_scaling", {{"type", "longrope"}, {"factor", 4}}, "llama qwen2 qwen3"},
      {"rope_scaling", {{"type", "yran"}, {"factor", 4}}, "llama qwen2 qwen3"},
      {"rope_scaling", {{"type", "yarn"}}, "llama qwen2 qwen3"},
      {"rope_scaling", yarn("beta_fast", 0.5), "llama qwen3"},
      {"rope_scaling", yarn("beta_slow", 0), "llama"},
      {"rope_scaling", yarn("mscale", -1), "llama"},
      {"rope_scaling", yarn("attention_factor", 0), "llama"},
      {"rope_scaling", yarn("truncate", 1), "llama"},
      {"rope_parameters", yarn("rope_theta", 1), "llama"},
      {"original_max_position_embeddings", 0, "llama"},
      {"rope_scaling", {{"rope_type", "linear"}}, "llama qwen2 qwen3"},
      {"rope_scaling", without("factor"), "llama"},
      {"rope_scaling", without("low_freq_factor"), "llama"},
      {"rope_parameters", without("high_freq_factor"), "llama gemma3_text"},
      {"rope_parameters", flat, "llama"},
      {"rope_parameters", negative, "llama"},
      {"rope_parameters", {{"full_attention", ramp}}, "llama qwen2 qwen3"},
      {"layer_types", {"sliding_attention", "full_attention", "full_attention"}, "qwen2 qwen3"},
      {"layer_types", {"full_attention"}, "qwen2 qwen3"},
      {"use_sliding_window", "yes", "qwen2 qwen3"},
      {"max_window_layers", -1, "qwen2 qwen3"},
      {"sliding_window", 0, "qwen2 qwen3"},
      {"tie_word_embeddings", 1, "llama qwen2 qwen3"}};
  for (const auto& [key, value, families] : bad) {
    for (const std::string family : {"gemma3_text", "llama", "qwen2", "qwen3"}) {
      if (families.find(family) == std::string::npos) continue;
      json config = FamilyConfig(family);
      EXPECT_THAT(Parse(config), IsOk());
      config[key] = value;
      EXPECT_THAT(Parse(config),
                  Fails(ExitCode::kConfig, AllOf(HasSubstr("DIR/config.json: "), HasSubstr(key))))
          << family << " " << key << " " << value;
    }
  }
}

TEST(Registry, RopeTypesThatAreNotSupportedAreToldWhichAre) {
  for (const char* type : {"dynamic", "longrope", "YARN"}) {
    json config = FamilyConfig("llama");
    config["rope_scaling"] = {{"rope_type", type}, {"factor", 4}};
    EXPECT_THAT(
        Parse(config),
        Fails(ExitCode::kConfig, HasSubstr(std::string("\"rope_scaling.rope_type\" is \"") + type +
                                           "\"; supported: default, linear, llama3, yarn")));
  }
}

TEST(Registry, TheSizesThatALayoutDivides) {
  ASSERT_OK_AND_ASSIGN(const ModelSpec spec, Parse(FamilyConfig("qwen3")));
  EXPECT_EQ(spec.vocab_size, 32);
  EXPECT_EQ(spec.intermediate_size, 20);
  EXPECT_EQ(spec.layers, 3);
  EXPECT_EQ(spec.heads, 4);
  EXPECT_EQ(spec.key_value_heads, 2);
}

TEST(Registry, HeadWidthLeftOutIsNamedWithItsReason) {
  json config = FamilyConfig("qwen2");
  config.erase("head_dim");
  config["hidden_size"] = 48;  // 12 a head
  EXPECT_THAT(Parse(config),
              Fails(ExitCode::kConfig, HasSubstr("\"head_dim\" is 12 (hidden_size over heads)")));
}

TEST(Registry, AFamilysOwnParameters) {
  EXPECT_EQ(Build(FamilyConfig("llama")).store.slots().size(), 3 + 3 * 9U);
  const Built qwen2 = Build(FamilyConfig("qwen2")), qwen3 = Build(FamilyConfig("qwen3"));
  EXPECT_EQ(qwen2.store.slots().size(), 3 + 3 * 12U);
  EXPECT_EQ(qwen3.store.slots().size(), 3 + 3 * 11U);
  const int64_t bias = qwen2.store.Find("model.layers.1.self_attn.k_proj.bias");
  const int64_t norm = qwen3.store.Find("model.layers.1.self_attn.k_norm.weight");
  ASSERT_GE(bias, 0);
  ASSERT_GE(norm, 0);
  EXPECT_EQ(qwen2.store.slot(bias).shape, (std::vector<int64_t>{16}));
  EXPECT_EQ(qwen3.store.slot(norm).shape, (std::vector<int64_t>{8}));
}

TEST(Registry, PlainFamiliesHaveOneSpelling) {
  for (const char* family : {"llama", "qwen2", "qwen3"}) {
    ASSERT_OK_AND_ASSIGN(const ModelSpec spec, Parse(FamilyConfig(family)));
    EXPECT_EQ(spec.canonical_name("model.norm.weight"), "model.norm.weight");
    EXPECT_EQ(spec.canonical_name("lm_head.weight"), "lm_head.weight");  // untied by default
    // Not a parameter's name: loading will call it unexpected.
    EXPECT_EQ(spec.canonical_name("vision_tower.x"), "vision_tower.x");
    EXPECT_EQ(spec.canonical_name("model.layers.0.self_attn.rotary_emb.inv_freq"), std::nullopt);
  }
}

TEST(Registry, TheArchitectureGoesBeforeTheModelType) {
  json config = FamilyConfig("qwen3");
  config["architectures"] = {"LlamaForCausalLM"};
  ASSERT_OK_AND_ASSIGN(const ModelSpec spec, Parse(config));
  EXPECT_EQ(spec.family, "llama");
  for (const char* name : {"Gemma3ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM",
                           "Qwen3ForCausalLM", "model_type qwen3"}) {
    EXPECT_THAT(SupportedArchitectures(), ::testing::Contains(HasSubstr(name)));
  }
}

TEST(Registry, NullMeansDefault) {
  json config = TextConfig();
  for (const char* key :
       {"layer_types", "rope_scaling", "rope_parameters", "final_logit_softcapping",
        "attn_logit_softcapping", "use_bidirectional_attention", "rope_theta"}) {
    config[key] = nullptr;
  }
  EXPECT_EQ(Build(config).model.layer_kinds[0].rope.theta, 1e6);
}

TEST(Registry, MessageOfANestedKeyNamesItsPlace) {
  json config = TextConfig();
  config["head_dim"] = 12;
  const json multimodal = {{"architectures", {"Gemma3ForConditionalGeneration"}},
                           {"text_config", config}};
  EXPECT_THAT(Parse(multimodal),
              Fails(ExitCode::kConfig, HasSubstr("\"text_config.head_dim\" is 12")));
}

TEST(Registry, BrokenJsonNamesTheLine) {
  EXPECT_THAT(ParseModelSpec("{\n \"vocab_size\": 3,\n oops\n}", "c.json"),
              Fails(ExitCode::kConfig, HasSubstr("c.json:3")));
  EXPECT_THAT(ParseModelSpec("[1]", "c.json"),
              Fails(ExitCode::kConfig, HasSubstr("not a JSON object")));
  EXPECT_THAT(ParseModelSpec("", "c.json"), Fails(ExitCode::kConfig, HasSubstr("c.json:1")));
  EXPECT_THAT(ParseModelSpec(std::string(100000, '['), "c.json"),
              Fails(ExitCode::kConfig, HasSubstr("c.json")));
}

TEST(Registry, LoadsFromADirectory) {
  const testing::TempDir directory;
  const auto fs = MakePosixFs();
  EXPECT_THAT(LoadModelSpec(*fs, directory.path()),
              Fails(ExitCode::kConfig, HasSubstr("config.json")));
  ASSERT_THAT(WriteFileDurably(*fs, directory.File("config.json"), TextConfig().dump()), IsOk());
  ASSERT_OK_AND_ASSIGN(const ModelSpec spec, LoadModelSpec(*fs, directory.path()));
  EXPECT_EQ(spec.family, "gemma3_text");
  EXPECT_EQ(spec.vocab_size, 32);
}

}  // namespace
}  // namespace osler
