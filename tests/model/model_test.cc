#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "base/philox.h"
#include "model/block.h"
#include "model/parameter_store.h"
#include "model/registry.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

ModelSpec Spec(int64_t vocabulary, int64_t hidden, double range = 0.02) {
  const nlohmann::json config = {{"model_type", "gemma3_text"}, {"vocab_size", vocabulary},
                                 {"hidden_size", hidden},       {"intermediate_size", 24},
                                 {"num_hidden_layers", 2},      {"num_attention_heads", 2},
                                 {"num_key_value_heads", 1},    {"head_dim", 8},
                                 {"sliding_window", 3},         {"initializer_range", range}};
  return ParseModelSpec(config.dump(), "config.json").value();
}

TEST(ParameterStore, AccumulatesInFp32ForBf16) {
  ParameterStore store;
  const int64_t index = store.Declare("w", {2, 3});
  EXPECT_EQ(store.Find("w"), index);
  EXPECT_EQ(store.Find("v"), -1);
  EXPECT_EQ(store.parameter_count(), 6);
  store.slot(index).local = at::zeros({2, 3}, at::kBFloat16);
  store.ZeroGradients();  // nothing to zero yet
  EXPECT_FALSE(store.slot(index).gradient.defined());
  for (int i = 0; i < 1000; ++i) store.AddGradient(index, at::full({2, 3}, 1.0, at::kBFloat16));
  EXPECT_EQ(store.slot(index).gradient.scalar_type(), at::kFloat);
  EXPECT_TRUE(
      at::equal(store.slot(index).gradient, at::full({2, 3}, 1000.0)));  // bf16 would stop at 256
  store.ZeroGradients();
  EXPECT_TRUE(at::equal(store.GradientOf(index), at::zeros({2, 3})));
}

TEST(ParameterStore, TakesAnEmbeddingsRows) {
  ParameterStore store;
  const int64_t index = store.Declare("embedding", {5, 2});
  store.slot(index).local = at::zeros({5, 2}, at::kDouble);
  const auto table = [](std::vector<double> values) {
    return at::tensor(values, at::kDouble).view({-1, 2});
  };
  const at::Tensor places = at::tensor({3, 0, 3}, at::kLong).unsqueeze(0);
  store.AddGradient(index, at::sparse_coo_tensor(places, table({1, 2, 3, 4, 10, 20}), {5, 2}));
  store.AddGradient(index, at::ones({5, 2}, at::kDouble));
  const at::Tensor expected = table({4, 5, 1, 1, 1, 1, 12, 23, 1, 1});
  EXPECT_TRUE(at::equal(store.slot(index).gradient, expected));
}

TEST(ParameterStoreDeathTest, RefusesANameTwice) {
  ParameterStore store;
  store.Declare("w", {1});
  EXPECT_DEATH(store.Declare("w", {1}), "check failed");
}

TEST(Model, PreparesPackedDocuments) {
  ParameterStore store;
  const Model model = Spec(50, 8).build(store);
  const SequenceInputs inputs = model.PrepareInputs({7, 0, 49, 5, 6, 7, 8}, {0, 2});
  EXPECT_TRUE(at::equal(inputs.tokens_T, at::tensor({7, 0, 49, 5, 6, 7, 8}, at::kLong)));
  EXPECT_TRUE(at::equal(inputs.positions_T, at::tensor({0, 1, 0, 1, 2, 3, 4}, at::kLong)));
  ASSERT_EQ(inputs.masks.size(), 2U);
  EXPECT_TRUE(at::equal(inputs.masks[0].lo_T, at::tensor({0, 0, 2, 2, 2, 2, 2}, at::kInt)));
  EXPECT_TRUE(at::equal(inputs.masks[1].lo_T, at::tensor({0, 0, 2, 2, 2, 3, 4}, at::kInt)));
  EXPECT_EQ(inputs.ropes[1].cos_TD.sizes(), (at::IntArrayRef{7, 8}));
  EXPECT_THROW(model.PrepareInputs({50}, {0}), c10::Error);
  EXPECT_THROW(model.PrepareInputs({-1}, {0}), c10::Error);
}

TEST(InitializeParameters, DependsOnSeedNameAndElementAlone) {
  const ModelSpec spec = Spec(3001, 33), larger = Spec(4000, 33);
  ParameterStore a, b, c, other;
  spec.build(a);
  spec.build(b);
  larger.build(c);
  spec.build(other);
  InitializeParameters(a, spec, 7, at::kDouble);
  InitializeParameters(b, spec, 7, at::kFloat);
  InitializeParameters(c, larger, 7, at::kDouble);
  InitializeParameters(other, spec, 8, at::kDouble);
  for (size_t i = 0; i < a.slots().size(); ++i) {
    const at::Tensor& value = a.slots()[i].local;
    ASSERT_EQ(value.sizes(), at::IntArrayRef(a.slots()[i].shape));
    EXPECT_TRUE(at::equal(value.to(at::kFloat), b.slots()[i].local));
    const bool norm = a.slots()[i].shape.size() == 1;
    EXPECT_EQ(at::equal(value, other.slots()[i].local), norm) << a.slots()[i].name;
  }
  // A larger table starts with the same rows.
  EXPECT_TRUE(at::equal(a.slot(0).local, c.slot(0).local.narrow(0, 0, 3001)));
  EXPECT_FALSE(at::equal(a.slot(1).local, a.slot(4).local));
}

TEST(InitializeParameters, DrawsTheNormalDistribution) {
  const ModelSpec spec = Spec(20000, 64, 0.05);
  ParameterStore store;
  spec.build(store);
  InitializeParameters(store, spec, 1, at::kDouble);
  const at::Tensor x = store.slot(0).local / 0.05;
  const double error =
      5 / std::sqrt(static_cast<double>(x.numel()));  // five standard errors of the mean
  EXPECT_NEAR(x.mean().item<double>(), 0, error);
  EXPECT_NEAR(x.square().mean().item<double>(), 1, 2 * error);
  EXPECT_NEAR(x.pow(4).mean().item<double>(), 3, 10 * error);
  EXPECT_NEAR((x < -1).to(at::kDouble).mean().item<double>(), 0.158655, error);
  EXPECT_NEAR((x.flatten().slice(0, 0, x.numel(), 2) * x.flatten().slice(0, 1, x.numel(), 2))
                  .mean()
                  .item<double>(),
              0, 2 * error);
  EXPECT_EQ(store.slot(store.Find("model.layers.1.self_attn.q_norm.weight"))
                .local.abs()
                .max()
                .item<double>(),
            0);
}

TEST(InitializeParameters, NormsStartAsTheIdentityAndBiasesAtZero) {
  for (const char* family : {"gemma3_text", "llama", "qwen2", "qwen3"}) {
    const nlohmann::json config = {
        {"model_type", family},    {"vocab_size", 20},         {"hidden_size", 16},
        {"intermediate_size", 24}, {"num_hidden_layers", 1},   {"num_attention_heads", 2},
        {"head_dim", 8},           {"num_key_value_heads", 1}, {"tie_word_embeddings", false}};
    ASSERT_OK_AND_ASSIGN(const ModelSpec spec, ParseModelSpec(config.dump(), "config.json"));
    ParameterStore store;
    spec.build(store);
    InitializeParameters(store, spec, 3, at::kFloat);
    const double identity = std::string(family) == "gemma3_text" ? 0 : 1;
    int constants = 0;
    for (const ParameterSlot& slot : store.slots()) {
      const double low = slot.local.min().item<double>(), high = slot.local.max().item<double>();
      if (slot.shape.size() == 2) {
        EXPECT_LT(low, high) << slot.name;
        continue;
      }
      const double expected = slot.name.ends_with(".bias") ? 0 : identity;
      EXPECT_TRUE(low == expected && high == expected) << slot.name;
      ++constants;
    }
    EXPECT_GE(constants, 3);
  }
}

TEST(InitializeParameters, TwentyMillionParametersTakeSeconds) {
  const ModelSpec spec = Spec(312500, 64);
  ParameterStore store;
  spec.build(store);
  const auto start = std::chrono::steady_clock::now();
  InitializeParameters(store, spec, 1, at::kBFloat16);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  RecordProperty("seconds", std::to_string(elapsed.count()));
  EXPECT_EQ(store.slot(0).local.scalar_type(), at::kBFloat16);
  EXPECT_LT(elapsed.count(), 10);  // about half a second on two free cores
}

}  // namespace
}  // namespace osler
