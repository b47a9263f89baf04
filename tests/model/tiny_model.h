// A tiny model of any family whose every parameter is random, whole and as the ranks of a tensor
// axis hold it.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "model/registry.h"
#include "parallel/placement.h"

namespace osler::testing {

struct TinyCase {
  std::string family;
  int64_t heads = 4, key_value_heads = 2;
  int ranks = 2;
  bool tied = false;
  int64_t mlp_chunk_tokens = 0;
};
inline void PrintTo(const TinyCase& c, std::ostream* out) {
  *out << c.family << " " << c.heads << "/" << c.key_value_heads << " heads on " << c.ranks
       << " ranks" << (c.tied ? ", tied" : "") << (c.mlp_chunk_tokens > 0 ? ", tiled MLP" : "");
}

inline constexpr int64_t kTinyVocabulary = 48, kTinyTokens = 24, kTinyWidth = 32;

// A model whose every parameter is random, as one process has it.
struct WholeModel {
  ModelSpec spec;
  ParameterStore store;
  Model model;
  SequenceInputs inputs;
  std::vector<at::Tensor> parameters;  // by slot
};

inline WholeModel MakeWhole(const TinyCase& c) {
  const nlohmann::json config = {{"model_type", c.family},
                                 {"vocab_size", kTinyVocabulary},
                                 {"hidden_size", kTinyWidth},
                                 {"intermediate_size", 24},
                                 {"num_hidden_layers", 2},
                                 {"num_attention_heads", c.heads},
                                 {"num_key_value_heads", c.key_value_heads},
                                 {"head_dim", 8},
                                 {"sliding_window", 5},
                                 {"sliding_window_pattern", 2},
                                 {"tie_word_embeddings", c.tied}};
  WholeModel whole{.spec = ParseModelSpec(config.dump(), "config.json").value(),
                   .store = {},
                   .model = {},
                   .inputs = {},
                   .parameters = {}};
  whole.model = whole.spec.build(whole.store);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(7);
  for (const ParameterSlot& slot : whole.store.slots()) {
    const double std = slot.shape.size() == 1 ? 0.4 : 0.3;
    whole.parameters.push_back(at::empty(slot.shape, at::kDouble).normal_(0, std, generator));
  }
  // The upper half of the vocabulary never comes: some ranks look up nothing.
  std::vector<int32_t> tokens;
  for (int64_t t = 0; t < kTinyTokens; ++t)
    tokens.push_back(static_cast<int32_t>((t * 17 + t * t * 5) % (kTinyVocabulary / 2)));
  whole.inputs = whole.model.PrepareInputs(tokens, {0, 9, 10});
  whole.inputs.mlp_chunk_tokens = c.mlp_chunk_tokens;
  return whole;
}

inline TensorSlice SliceOfSlot(const WholeModel& whole, size_t slot, int rank, int ranks) {
  const ParameterSlot& parameter = whole.store.slots()[slot];
  return SliceFor(*FindRule(whole.spec.placements, parameter.name), parameter.shape, rank, ranks);
}

// A rank's slices as leaves; of one rank: the whole parameters.
inline std::vector<at::Tensor> LeavesOf(const WholeModel& whole, int rank, int ranks) {
  std::vector<at::Tensor> leaves;
  for (size_t i = 0; i < whole.parameters.size(); ++i) {
    leaves.push_back(Narrow(whole.parameters[i], SliceOfSlot(whole, i, rank, ranks))
                         .clone(at::MemoryFormat::Contiguous)
                         .requires_grad_(true));
  }
  return leaves;
}

inline at::Tensor RowsOf(const at::Tensor& x_TD, int rank, int ranks) {
  const int64_t rows = x_TD.size(0) / ranks;
  return x_TD.narrow(0, rank * rows, rows).clone();
}

// ‖got − want‖ ≤ 1e-10 ‖want‖, and want is not zero, which would test nothing.
inline void ExpectSameTensor(const at::Tensor& got, const at::Tensor& want,
                             const std::string& what) {
  ASSERT_EQ(got.sizes(), want.sizes()) << what;
  const double norm = want.norm().item<double>();
  EXPECT_GT(norm, 0) << what << ": nothing is tested";
  EXPECT_LT((got - want).norm().item<double>(), 1e-10 * norm) << what;
}

// Every family; as many key heads as ranks, more, fewer, one.
inline std::vector<TinyCase> TinyCases() {
  std::vector<TinyCase> cases;
  for (const char* family : {"gemma3_text", "llama", "qwen2", "qwen3"}) {
    cases.push_back({.family = family});
    cases.push_back({.family = family, .key_value_heads = 1, .tied = true});
    cases.push_back({.family = family, .key_value_heads = 4, .ranks = 4});
    cases.push_back({.family = family, .ranks = 4, .mlp_chunk_tokens = 7});
    cases.push_back({.family = family, .key_value_heads = 1, .ranks = 4});
  }
  cases.push_back({.family = "qwen2", .heads = 8, .key_value_heads = 2, .ranks = 4, .tied = true});
  return cases;
}
}  // namespace osler::testing
