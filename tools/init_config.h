// config.json and generation_config.json of a random-weight model of each family, as transformers
// would write them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace osler {

inline constexpr int64_t kInitWindow = 512, kInitGlobalEvery = 6;

struct InitFlags {
  std::string family = "gemma3", output, tokenizer, dtype = "fp32";
  int64_t vocab_size = 0, hidden_size = 256, layers = 6, heads = 4, kv_heads = 1, head_dim = 64;
  int64_t intermediate_size = 1024, max_positions = 32768;
  std::optional<int64_t> sliding_window, global_every;  // Gemma 3 alone has them
  uint64_t seed = 0;
  bool untied = false;
};

// What --family takes.
std::vector<std::string> InitFamilies();

// Ids of the family's special tokens; -1: none.
struct SpecialIds {
  int32_t bos = -1, eos = -1, pad = -1, end_of_turn = -1;
};
// From the tokenizer where it has them (nullptr: no tokenizer). PRE: `family` is one of
// InitFamilies().
SpecialIds FindSpecialIds(const std::string& family, const Tokenizer* tokenizer);

// PRE: flags.family is one of InitFamilies(); layers and global_every are at least 1. Other sizes
// are not checked here but by the model's reader.
nlohmann::ordered_json InitConfig(const InitFlags& flags, const SpecialIds& ids);
nlohmann::ordered_json InitGenerationConfig(const SpecialIds& ids);

}  // namespace osler
