#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/safetensors.h"
#include "data/tokenizer/tokenizer.h"
#include "model/registry.h"
#include "tools/commands.h"
#include "tools/init_config.h"

namespace osler {
namespace {

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

absl::Status WriteModel(Fs& fs, const InitFlags& flags, const SpecialIds& ids) {
  const std::string config = InitConfig(flags, ids).dump(2) + "\n";
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
  OSLER_RETURN_IF_ERROR(WriteFileDurably(fs, JoinPath(flags.output, "generation_config.json"),
                                         InitGenerationConfig(ids).dump(2) + "\n"));
  OSLER_RETURN_IF_ERROR(WriteFileDurably(fs, JoinPath(flags.output, "config.json"), config));
  LogInfo("wrote {}: {} parameters in {} tensors, vocabulary {}", flags.output,
          store.parameter_count(), tensors.size(), flags.vocab_size);
  return absl::OkStatus();
}

absl::Status Init(Fs& fs, InitFlags flags) {
  if (flags.family != "gemma3" && (flags.sliding_window || flags.global_every)) {
    return ConfigError(
        absl::StrCat("--sliding-window and --global-every are Gemma 3's: leave them out with ",
                     "--family ", flags.family));
  }
  std::unique_ptr<Tokenizer> tokenizer;
  if (!flags.tokenizer.empty()) {
    OSLER_ASSIGN_OR_RETURN(tokenizer, Tokenizer::Load(fs, flags.tokenizer));
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
  const SpecialIds ids = FindSpecialIds(flags.family, tokenizer.get());
  const absl::Status written = WriteModel(fs, flags, ids);
  return ExitCodeOf(written) == ExitCode::kBug ? Reclassify(written, ExitCode::kConfig) : written;
}

}  // namespace

void AddInitCommand(CLI::App& app, Fs& fs, Action& action) {
  auto flags = std::make_shared<InitFlags>();
  CLI::App* command =
      app.add_subcommand("init", "Write a random-weight model in Hugging Face layout");
  command->footer(absl::StrCat(
      "Architectures that osler trains: ", absl::StrJoin(SupportedArchitectures(), ", "),
      ".\nExample: osler init --family llama --output models/tiny --tokenizer tokenizers/clinic "
      "--hidden-size 128 --layers 4"));
  command->add_option("--family", flags->family)
      ->check(CLI::IsMember(InitFamilies()))
      ->capture_default_str();
  command->add_option("--output", flags->output, "directory to write")->required();
  command->add_option("--tokenizer", flags->tokenizer,
                      "directory with tokenizer.json, copied along");
  command->add_option("--vocab-size", flags->vocab_size, "default: the tokenizer's");
  command->add_option("--hidden-size", flags->hidden_size)->capture_default_str();
  const CLI::Range layers(int64_t{1}, int64_t{4096});
  command->add_option("--layers", flags->layers)->check(layers)->capture_default_str();
  command->add_option("--heads", flags->heads, "query heads")->capture_default_str();
  command->add_option("--kv-heads", flags->kv_heads)->capture_default_str();
  command->add_option("--head-dim", flags->head_dim, "a multiple of 8, at most 256")
      ->capture_default_str();
  command->add_option("--intermediate-size", flags->intermediate_size)->capture_default_str();
  command->add_option("--sliding-window", flags->sliding_window,
                      absl::StrCat("Gemma 3 only: of most layers, default ", kInitWindow));
  command
      ->add_option("--global-every", flags->global_every,
                   absl::StrCat("Gemma 3 only: every n-th layer sees all tokens, default ",
                                kInitGlobalEvery))
      ->check(layers);
  command->add_option("--max-positions", flags->max_positions)->capture_default_str();
  command->add_option("--seed", flags->seed)->capture_default_str();
  command->add_option("--dtype", flags->dtype)
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command->add_flag("--untied", flags->untied, "a head of its own instead of the embedding");
  command->callback([&fs, &action, flags] { action = [&fs, flags] { return Init(fs, *flags); }; });
}

}  // namespace osler
