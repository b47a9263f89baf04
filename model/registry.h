// Model families by the architecture a config.json names.
//
// A family is its block maths, where its weights live on a mesh, and how its names are spelled in
// checkpoints. docs/model.md says how one is added.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "model/block.h"
#include "model/parameter_store.h"
#include "parallel/placement.h"

namespace osler {

struct ModelSpec {
  std::string family;  // "gemma3_text", "llama", "qwen2", "qwen3"
  // Declares every parameter in `store` (values undefined) and returns the blocks over those slots.
  std::function<Model(ParameterStore& store)> build;
  // Exactly one rule for every parameter that `build` declares.
  PlacementRules placements;
  // The store's name for a tensor name found in a checkpoint, whatever its spelling; a tied head
  // that a file writes a second time is the embedding. nullopt for a tensor that is not part of the
  // text model (vision tower, projector).
  std::function<std::optional<std::string>(std::string_view tensor)> canonical_name;
  // The value random initialisation gives a parameter: N(0, std²), or a constant where std is 0.
  struct Init {
    double std = 0.02;
    double constant = 0;
  };
  std::function<Init(std::string_view name)> init;
  // What a layout divides (model/layout.h).
  int64_t vocab_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t key_value_heads = 0;
};

// "Gemma3ForCausalLM (model_type gemma3_text)" and so on, for people.
std::vector<std::string> SupportedArchitectures();

// Reads DIR/config.json. Config errors name the file, the key and the supported architectures.
absl::StatusOr<ModelSpec> LoadModelSpec(Fs& fs, const std::string& model_directory);
absl::StatusOr<ModelSpec> ParseModelSpec(std::string_view config_json, const std::string& name);

// Fills every slot with its random initial value: Philox keyed by (seed, parameter name, element
// index), so the values do not depend on layout, order or threads.
void InitializeParameters(ParameterStore& store, const ModelSpec& spec, uint64_t seed,
                          at::ScalarType dtype);

}  // namespace osler
