// Data parallel over thread ranks is the one-rank computation: gradients per parameter in fp64,
// whatever the split.
#include <ATen/ops/equal.h>
#include <ATen/ops/sub.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/philox.h"
#include "model/registry.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "trainer/gradient_reduce.h"
#include "trainer/optim/adamw.h"
#include "trainer/walk.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;
using Gradients = std::map<std::string, at::Tensor>;

constexpr char kConfig[] = R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
  "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 5,
  "query_pre_attn_scalar": 16, "max_position_embeddings": 128,
  "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})";

Pack RandomPack(int64_t number) {
  Pack pack;
  pack.number = number;
  const uint64_t key = PhiloxKey(static_cast<uint64_t>(number), "pack");
  for (int doc = 0; doc < 3; ++doc) {
    pack.doc_starts.push_back(static_cast<int32_t>(pack.tokens.size()));
    const uint64_t length = 2 + PhiloxBits(key, static_cast<uint64_t>(doc), 1) % 12;
    for (uint64_t t = 0; t < length; ++t) {
      const uint64_t bits = PhiloxBits(key, t, 2 + static_cast<uint64_t>(doc));
      pack.tokens.push_back(static_cast<int32_t>(bits % 61));
      pack.labels.push_back(bits >> 32 & 3 ? pack.tokens.back() : kIgnore);
    }
  }
  return pack;
}

struct Split {
  int ranks = 1;
  size_t micro_batch = 1;
  RecomputeMode recompute = RecomputeMode::kNone;
};

constexpr int64_t kPacks = 7;  // divides by none of the layouts

// The gradients that rank 0 holds after one step's backward and reduction, and the loss sum of all
// ranks.
Gradients Compute(const Split& split) {
  Gradients result;
  const auto statuses = testing::RunRanks(split.ranks, [&](Communicator& comm) -> absl::Status {
    auto spec = ParseModelSpec(kConfig, "config");
    if (!spec.ok()) return spec.status();
    ParameterStore store;
    const Model model = spec->build(store);
    InitializeParameters(store, *spec, 3, at::kDouble);
    for (ParameterSlot& slot : store.slots()) {  // norms start at 0: move them off it
      slot.local.add_(0.05);
    }
    std::vector<Pack> mine;
    int64_t targets = 0;
    for (int64_t g = 0; g < kPacks; ++g) {
      const Pack pack = RandomPack(g);
      targets += CountTargets(pack);
      if (g % comm.size() == comm.rank()) mine.push_back(pack);
    }
    auto mesh = Mesh::Create({{1, comm.size(), 1, 1, 1}}, comm);
    if (!mesh.ok()) return mesh.status();
    GradientReducer gradients(store, *mesh, {});
    gradients.Begin(0);
    Walk walk(model, store, split.recompute);
    for (size_t i = 0; i < mine.size(); i += split.micro_batch) {
      const std::span<const Pack> some(&mine[i], std::min(split.micro_batch, mine.size() - i));
      walk.ForwardBackward(MakeMicroBatch(model, some), 1.0 / static_cast<double>(targets));
    }
    gradients.Finish();
    if (comm.rank() == 0) {
      for (const ParameterSlot& slot : store.slots()) result[slot.name] = slot.gradient.clone();
    }
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
  return result;
}

double Norm(const at::Tensor& x) { return x.norm().item<double>(); }

class DataParallelTest : public ::testing::TestWithParam<Split> {};

TEST_P(DataParallelTest, GradientsEqualOneRank) {
  const Gradients one = Compute({.micro_batch = static_cast<size_t>(kPacks)});
  const Gradients split = Compute(GetParam());
  double global = 0;
  for (const auto& [name, gradient] : one) global = std::hypot(global, Norm(gradient));
  ASSERT_EQ(one.size(), split.size());
  for (const auto& [name, gradient] : one) {
    EXPECT_GT(Norm(gradient), 0) << name;
    EXPECT_LE(Norm(at::sub(split.at(name), gradient)),
              1e-10 * std::max(Norm(gradient), 1e-6 * global))
        << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Splits, DataParallelTest,
                         ::testing::Values(Split{2, 1}, Split{3, 2}, Split{4, 1},
                                           Split{8, 1},  // one rank has no pack at all
                                           Split{1, 1}, Split{1, 3, RecomputeMode::kFull},
                                           Split{2, 2, RecomputeMode::kFull}));

TEST(RecomputeTest, SameBitsAsKeptActivations) {
  const Gradients kept = Compute({1, 2, RecomputeMode::kNone});
  const Gradients again = Compute({1, 2, RecomputeMode::kFull});
  for (const auto& [name, gradient] : kept)
    EXPECT_TRUE(at::equal(gradient, again.at(name))) << name;
}

TEST(WalkTest, APackWithoutTargetsAddsNothing) {
  auto spec = ParseModelSpec(kConfig, "config");
  ASSERT_THAT(spec, IsOk());
  ParameterStore store;
  const Model model = spec->build(store);
  InitializeParameters(store, *spec, 3, at::kFloat);
  Pack pack = RandomPack(1);
  std::fill(pack.labels.begin(), pack.labels.end(), kIgnore);
  Walk walk(model, store, RecomputeMode::kNone);
  const LossSum loss = walk.ForwardBackward(MakeMicroBatch(model, {&pack, 1}), 1.0);
  EXPECT_EQ(loss.count, 0);
  EXPECT_EQ(loss.sum, 0);
  for (const ParameterSlot& slot : store.slots()) EXPECT_EQ(Norm(slot.gradient), 0) << slot.name;
}

TEST(WalkTest, TheFirstTokenOfADocumentIsNeverATarget) {
  Pack pack;
  pack.tokens = {5, 6, 7, 8, 9};
  pack.labels = pack.tokens;
  pack.doc_starts = {0, 3};
  EXPECT_EQ(CountTargets(pack), 3);
}

}  // namespace
}  // namespace osler
