#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/safetensors.h"
#include "data/tokenizer/tokenizer.h"
#include "model/registry.h"
#include "tools/commands.h"

namespace osler {
namespace {

struct InitFlags {
  std::string output, tokenizer, dtype = "fp32";
  int64_t vocab_size = 0, hidden_size = 256, layers = 6, heads = 4, kv_heads = 1, head_dim = 64;
  int64_t intermediate_size = 1024, sliding_window = 512, global_every = 6, max_positions = 32768;
  uint64_t seed = 0;
  bool untied = false;
  int32_t end_of_turn = -1;  // the tokenizer's id of <end_of_turn>, if it has one
};

// config.json with every key transformers writes for a Gemma 3 text model and this program reads.
nlohmann::ordered_json ConfigJson(const InitFlags& f) {
  std::vector<std::string> kinds;
  for (int64_t i = 1; i <= f.layers; ++i) {
    kinds.push_back(i % f.global_every == 0 ? "full_attention" : "sliding_attention");
  }
  return {{"architectures", {"Gemma3ForCausalLM"}},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"attn_logit_softcapping", nullptr},
          {"bos_token_id", 2},
          {"dtype", f.dtype == "bf16" ? "bfloat16" : "float32"},
          {"eos_token_id", 1},
          {"final_logit_softcapping", nullptr},
          {"head_dim", f.head_dim},
          {"hidden_activation", "gelu_pytorch_tanh"},
          {"hidden_size", f.hidden_size},
          {"initializer_range", 0.02},
          {"intermediate_size", f.intermediate_size},
          {"layer_types", kinds},
          {"max_position_embeddings", f.max_positions},
          {"model_type", "gemma3_text"},
          {"num_attention_heads", f.heads},
          {"num_hidden_layers", f.layers},
          {"num_key_value_heads", f.kv_heads},
          {"pad_token_id", 0},
          {"query_pre_attn_scalar", f.head_dim},
          {"rms_norm_eps", 1e-6},
          {"rope_parameters",
           {{"full_attention", {{"rope_theta", 1e6}, {"rope_type", "default"}}},
            {"sliding_attention", {{"rope_theta", 1e4}, {"rope_type", "default"}}}}},
          {"sliding_window", f.sliding_window},
          {"tie_word_embeddings", !f.untied},
          {"use_bidirectional_attention", false},
          {"use_cache", true},
          {"vocab_size", f.vocab_size}};
}

// The tokenizer's own files go along byte for byte; weights and configuration are ours.
absl::Status CopySideFiles(Fs& fs, const std::string& from, const std::string& to) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "added_tokens.json", "chat_template.jinja", "tokenizer.model"}) {
    const std::string source = JoinPath(from, name);
    if (!fs.Exists(source)) continue;
    OSLER_ASSIGN_OR_RETURN(const std::string content, fs.ReadFile(source));
    OSLER_RETURN_IF_ERROR(WriteFileDurably(fs, JoinPath(to, name), content));
  }
  return absl::OkStatus();
}

absl::Status WriteModel(Fs& fs, const InitFlags& flags) {
  const std::string config = ConfigJson(flags).dump(2) + "\n";
  OSLER_ASSIGN_OR_RETURN(const ModelSpec spec, ParseModelSpec(config, "the flags of osler init"));
  ParameterStore store;
  std::vector<TensorToWrite> tensors;
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    spec.build(store);
    InitializeParameters(store, spec, flags.seed,
                         flags.dtype == "bf16" ? at::kBFloat16 : at::kFloat);
    for (const ParameterSlot& slot : store.slots())
      tensors.push_back(ToWrite(slot.name, slot.local));
    return absl::OkStatus();
  }));
  OSLER_RETURN_IF_ERROR(fs.MakeDirectories(flags.output));
  OSLER_RETURN_IF_ERROR(
      WriteSafetensors(fs, JoinPath(flags.output, "model.safetensors"), tensors, {{"format", "pt"}})
          .status());
  if (!flags.tokenizer.empty()) {
    OSLER_RETURN_IF_ERROR(CopySideFiles(fs, flags.tokenizer, flags.output));
  }
  nlohmann::ordered_json generation = {
      {"bos_token_id", 2}, {"eos_token_id", 1}, {"pad_token_id", 0}};
  // Chat models end an answer with their turn, not with the end of the text.
  if (flags.end_of_turn >= 0) generation["eos_token_id"] = {1, flags.end_of_turn};
  OSLER_RETURN_IF_ERROR(WriteFileDurably(fs, JoinPath(flags.output, "generation_config.json"),
                                         generation.dump(2) + "\n"));
  OSLER_RETURN_IF_ERROR(WriteFileDurably(fs, JoinPath(flags.output, "config.json"), config));
  LogInfo("wrote {}: {} parameters in {} tensors, vocabulary {}", flags.output,
          store.parameter_count(), tensors.size(), flags.vocab_size);
  return absl::OkStatus();
}

absl::Status Init(Fs& fs, InitFlags flags) {
  if (flags.global_every < 1) return ConfigError("--global-every must be at least 1");
  if (!flags.tokenizer.empty()) {
    OSLER_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(fs, flags.tokenizer));
    flags.end_of_turn = tokenizer->IdOf("<end_of_turn>");
    if (flags.vocab_size == 0) flags.vocab_size = tokenizer->vocab_size();
    if (flags.vocab_size < tokenizer->vocab_size()) {
      return ConfigError(absl::StrCat("--vocab-size ", flags.vocab_size,
                                      " is less than the tokenizer's ", tokenizer->vocab_size()));
    }
  }
  if (flags.vocab_size == 0) return ConfigError("give --tokenizer DIR or --vocab-size N");
  if (fs.Exists(JoinPath(flags.output, "config.json"))) {
    return ConfigError(
        absl::StrCat(flags.output, " already holds a model; choose another --output"));
  }
  const absl::Status written = WriteModel(fs, flags);
  return ExitCodeOf(written) == ExitCode::kBug ? Reclassify(written, ExitCode::kConfig) : written;
}

}  // namespace

void AddInitCommand(CLI::App& app, Fs& fs, Action& action) {
  auto flags = std::make_shared<InitFlags>();
  CLI::App* command =
      app.add_subcommand("init", "Write a random-weight Gemma 3 text model in Hugging Face layout");
  command->footer(
      "Example: osler init --output models/tiny --tokenizer tokenizers/clinic --hidden-size 128 "
      "--layers 4");
  command->add_option("--output", flags->output, "directory to write")->required();
  command->add_option("--tokenizer", flags->tokenizer,
                      "directory with tokenizer.json, copied along");
  command->add_option("--vocab-size", flags->vocab_size, "default: the tokenizer's");
  command->add_option("--hidden-size", flags->hidden_size)->capture_default_str();
  command->add_option("--layers", flags->layers)->capture_default_str();
  command->add_option("--heads", flags->heads, "query heads")->capture_default_str();
  command->add_option("--kv-heads", flags->kv_heads)->capture_default_str();
  command->add_option("--head-dim", flags->head_dim, "a multiple of 8, at most 256")
      ->capture_default_str();
  command->add_option("--intermediate-size", flags->intermediate_size)->capture_default_str();
  command->add_option("--sliding-window", flags->sliding_window)->capture_default_str();
  command->add_option("--global-every", flags->global_every, "every n-th layer sees all tokens")
      ->capture_default_str();
  command->add_option("--max-positions", flags->max_positions)->capture_default_str();
  command->add_option("--seed", flags->seed)->capture_default_str();
  command->add_option("--dtype", flags->dtype)
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command->add_flag("--untied", flags->untied, "a head of its own instead of the embedding");
  command->callback([&fs, &action, flags] { action = [&fs, flags] { return Init(fs, *flags); }; });
}

}  // namespace osler
