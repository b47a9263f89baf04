// A model whose tokens are split over context ranks computes what one rank computes: losses and
// every parameter's gradient, in fp64.
#include <ATen/ops/add.h>
#include <ATen/ops/sub.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/philox.h"
#include "model/registry.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "tests/trainer/layout_testing.h"
#include "trainer/micro_batch.h"
#include "trainer/walk.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;

constexpr char kGemma[] = R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
  "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 5,
  "query_pre_attn_scalar": 16, "max_position_embeddings": 512,
  "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})";
constexpr char kQwen[] = R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
  "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512})";

// Documents of these lengths; about a quarter of the labels do not count.
Pack MakePack(uint64_t seed, const std::vector<int64_t>& lengths) {
  Pack pack;
  const uint64_t key = PhiloxKey(seed, "pack");
  for (const int64_t length : lengths) {
    pack.doc_starts.push_back(static_cast<int32_t>(pack.tokens.size()));
    for (int64_t t = 0; t < length; ++t) {
      const uint64_t bits = PhiloxBits(key, pack.tokens.size());
      pack.tokens.push_back(static_cast<int32_t>(bits % 61));
      pack.labels.push_back(bits >> 32 & 3 ? pack.tokens.back() : kIgnore);
    }
  }
  return pack;
}

std::vector<Pack> MakePacks(const std::string& name) {
  if (name == "none") return {};
  if (name == "tiny") return {MakePack(1, {3})};
  if (name == "long") return {MakePack(2, {300})};
  return {MakePack(3, {1, 40, 2, 90, 1}), MakePack(4, {17, 61})};
}

struct Case {
  const char* config = kGemma;
  std::string packs = "many";
  int ranks = 2;
  ContextMethod method = ContextMethod::kAuto;
  RecomputeMode recompute = RecomputeMode::kNone;
};

struct Result {
  LossSum trained, evaluated;
  int64_t tokens = 0, targets = 0;
  std::map<std::string, at::Tensor> gradients;
};

Result Compute(const Case& c) {
  Result total;
  std::mutex mutex;
  const auto body = [&](Communicator& comm) -> absl::Status {
    auto spec = ParseModelSpec(c.config, "config");
    if (!spec.ok()) return spec.status();
    ParameterStore store;
    const Model model = spec->build(store);
    InitializeParameters(store, *spec, 3, at::kDouble);
    for (ParameterSlot& slot : store.slots()) slot.local.add_(0.05);
    const MicroBatch batch =
        MakeMicroBatch(model, MakePacks(c.packs), {.context = &comm, .context_method = c.method});
    const LossSum evaluated =
        Walk::Alone(model, store, {}).Evaluate(1, [&](int64_t) { return batch; })[0];
    const LossSum trained =
        testing::StepAlone(model, store, batch, 0.01, {.recompute = c.recompute});
    const std::lock_guard<std::mutex> lock(mutex);
    total.evaluated = {total.evaluated.sum + evaluated.sum,
                       total.evaluated.count + evaluated.count};
    total.trained = {total.trained.sum + trained.sum, total.trained.count + trained.count};
    total.tokens += batch.tokens;
    total.targets += batch.target_tokens;
    for (const ParameterSlot& slot : store.slots()) {
      at::Tensor& sum = total.gradients[slot.name];
      sum = sum.defined() ? at::add(sum, slot.gradient) : slot.gradient.clone();
    }
    return absl::OkStatus();
  };
  for (const absl::Status& status : testing::RunRanks(c.ranks, body)) EXPECT_THAT(status, IsOk());
  return total;
}

double Norm(const at::Tensor& x) { return x.norm().item<double>(); }

class ContextParallelTest : public ::testing::TestWithParam<Case> {};

TEST_P(ContextParallelTest, EqualsOneRank) {
  Case one = GetParam();
  one.ranks = 1;
  one.recompute = RecomputeMode::kNone;
  const Result expected = Compute(one), split = Compute(GetParam());
  EXPECT_EQ(split.tokens, expected.tokens);
  EXPECT_EQ(split.targets, expected.targets);
  EXPECT_EQ(split.trained.count, expected.targets);
  EXPECT_EQ(split.evaluated.count, expected.targets);
  EXPECT_NEAR(split.trained.sum, expected.trained.sum, 1e-12 * expected.trained.sum);
  EXPECT_NEAR(split.evaluated.sum, expected.trained.sum, 1e-12 * expected.trained.sum);
  double global = 0;
  for (const auto& [name, gradient] : expected.gradients)
    global = std::hypot(global, Norm(gradient));
  for (const auto& [name, gradient] : expected.gradients) {
    EXPECT_EQ(Norm(gradient) > 0, GetParam().packs != "none") << name;
    EXPECT_LE(Norm(at::sub(split.gradients.at(name), gradient)),
              1e-10 * std::max(Norm(gradient), 1e-6 * global))
        << name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, ContextParallelTest,
    ::testing::Values(
        Case{}, Case{.ranks = 4}, Case{.ranks = 2, .method = ContextMethod::kRing},
        Case{.ranks = 4, .method = ContextMethod::kRing},
        Case{.packs = "long", .ranks = 3, .method = ContextMethod::kRing},
        Case{.packs = "long", .ranks = 8}, Case{.packs = "tiny", .ranks = 4},
        Case{.packs = "none", .ranks = 2},
        Case{.ranks = 4, .method = ContextMethod::kRing, .recompute = RecomputeMode::kFull},
        Case{.ranks = 4, .method = ContextMethod::kRing, .recompute = RecomputeMode::kSelective},
        Case{.ranks = 2, .recompute = RecomputeMode::kSelective}, Case{.config = kQwen, .ranks = 4},
        Case{.config = kQwen, .ranks = 2, .method = ContextMethod::kRing}));

}  // namespace
}  // namespace osler
