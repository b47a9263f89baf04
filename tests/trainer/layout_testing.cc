#include "tests/trainer/layout_testing.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sub.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <optional>
#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "model/registry.h"
#include "parallel/tensor_part.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "trainer/step.h"

namespace osler::testing {
namespace {

at::Tensor RandomValue(const ParameterSlot& slot) {
  at::Tensor value = at::empty(slot.shape, at::kDouble);
  const uint64_t key = PhiloxKey(11, slot.name);
  auto* x = value.mutable_data_ptr<double>();
  for (int64_t i = 0; i < value.numel(); ++i)
    x[i] = 0.3 + 0.25 * PhiloxNormal(key, static_cast<uint64_t>(i));
  return value;
}

bool IsTrained(const TinyCase& tiny, const std::string& name) {
  return tiny.trained.empty() ||
         std::any_of(tiny.trained.begin(), tiny.trained.end(),
                     [&](const std::string& beginning) { return name.starts_with(beginning); });
}

// One rank's model, walk and packs.
class Rank {
 public:
  Rank(const TinyCase& tiny, const Layout& layout, const ModelSpec& spec, Mesh& mesh)
      : tiny_(tiny), layout_(layout), mesh_(mesh), model_(spec.build(store_)) {
    const PipelineShape shape{mesh.shape().size(Axis::kPipeline), layout.chunks};
    plan_ = PlanStages(BlockCosts(model_, store_), HeadCost(model_, store_), shape);
    FillStore(spec);
    residency_.emplace(store_, mesh.comm(Axis::kShard));
    tied_ = TiedGroup(model_, mesh.comm(Axis::kPipeline));
    reducer_.emplace(store_, mesh,
                     ReduceOptions{.tied_group = tied_.get(), .tied_slot = model_.head_slot});
    walk_.emplace(WalkParts{model_, store_, *residency_, mesh.comm(Axis::kPipeline),
                            mesh.world().recorder(), plan_},
                  layout.walk);
    DealPacks(spec.vocab_size);
  }

  ParameterStore& store() { return store_; }

  LossSum Step() {
    const auto size = static_cast<size_t>(layout_.micro_batch);
    const ReaderShare reader = ReaderOf(mesh_);
    const int64_t each = (tiny_.packs + reader.count - 1) / reader.count;
    const auto micro_batches = (each + layout_.micro_batch - 1) / layout_.micro_batch;
    LossSum loss = walk_->Run(
        micro_batches,
        [&](int64_t m) {
          const size_t begin = std::min(static_cast<size_t>(m) * size, packs_.size());
          const std::span<const Pack> some(packs_.data() + begin,
                                           std::min(size, packs_.size() - begin));
          return MakeMicroBatch(model_, some, MicroBatches());
        },
        1.0 / static_cast<double>(targets_), *reducer_);
    reducer_->Finish();
    return SumOverRanks({loss})[0];
  }
  double Norm() { return reducer_->GlobalNorm(); }
  std::array<int64_t, kAxes> BytesSent() const {
    std::array<int64_t, kAxes> bytes{};
    for (size_t a = 0; a < kAxes; ++a)
      bytes[a] = mesh_.comm(static_cast<Axis>(a)).traffic().bytes_sent;
    return bytes;
  }

  // AdamW with clipping, two groups of parameters; the gradients of the first step are there.
  void Train(int steps) {
    std::vector<ParameterGroup> groups = {{1, 0.1, {}}, {0.5, 0, {}}};
    for (size_t i = 0; i < store_.slots().size(); ++i) {
      if (store_.slots()[i].trainable) groups[i % 2].slots.push_back(static_cast<int64_t>(i));
    }
    AdamW optimizer(store_, {.state = layout_.state}, groups);
    for (int step = 1; step <= steps; ++step) {
      if (step > 1) Step();
      optimizer.Step(step, 1e-2, ClipFactor(Norm(), 0.5));
      residency_->PiecesChanged();
    }
    residency_->Settle();
  }

  // All packs on every reader.
  std::vector<LossSum> Evaluate() {
    auto losses = walk_->Evaluate(tiny_.packs, [&](int64_t m) {
      const Pack pack = RandomPack(m, model_.vocab_size);
      return MakeMicroBatch(model_, {&pack, 1}, MicroBatches());
    });
    if (ReaderOf(mesh_).index != 0) losses.assign(losses.size(), LossSum{});
    return SumOverRanks(losses);
  }

 private:
  MicroBatchLayout MicroBatches() const {
    return {.tensor = &mesh_.comm(Axis::kTensor),
            .context = &mesh_.comm(Axis::kContext),
            .context_method = layout_.context_method};
  }

  void FillStore(const ModelSpec& spec) {
    const Communicator &tensor = mesh_.comm(Axis::kTensor), &shard = mesh_.comm(Axis::kShard);
    store_.LayOut({.placements = spec.placements,
                   .tensor_rank = tensor.rank(),
                   .tensor_size = tensor.size(),
                   .shard_rank = shard.rank(),
                   .shard_size = shard.size(),
                   .zero = layout_.zero,
                   .stage = SlotsOfStage(model_, plan_, mesh_.comm(Axis::kPipeline).rank())});
    for (size_t i = 0; i < store_.slots().size(); ++i) {
      ParameterSlot& slot = store_.slots()[i];
      slot.trainable = IsTrained(tiny_, slot.name);
      if (!slot.present) continue;
      store_.Allocate(static_cast<int64_t>(i), at::kDouble);
      store_.TakeValue(static_cast<int64_t>(i), RandomValue(slot));
    }
  }

  void DealPacks(int64_t vocab_size) {
    const ReaderShare reader = ReaderOf(mesh_);
    for (int64_t g = 0; g < tiny_.packs; ++g) {
      Pack pack = RandomPack(g, vocab_size);
      targets_ += CountTargets(pack);
      if (g % reader.count == reader.index) packs_.push_back(std::move(pack));
    }
  }

  std::vector<LossSum> SumOverRanks(const std::vector<LossSum>& losses) {
    at::Tensor x = at::empty({2, static_cast<int64_t>(losses.size())}, at::kDouble);
    auto* values = x.mutable_data_ptr<double>();
    for (size_t i = 0; i < losses.size(); ++i) {
      values[i] = losses[i].sum;
      values[losses.size() + i] = static_cast<double>(losses[i].count);
    }
    SumLosses(mesh_, x);
    std::vector<LossSum> sums;
    for (size_t i = 0; i < losses.size(); ++i)
      sums.push_back({values[i], static_cast<int64_t>(values[losses.size() + i])});
    return sums;
  }

  const TinyCase& tiny_;
  const Layout& layout_;
  Mesh& mesh_;
  ParameterStore store_;
  Model model_;
  StagePlan plan_;
  std::optional<Residency> residency_;
  std::unique_ptr<Communicator> tied_;
  std::optional<GradientReducer> reducer_;
  std::optional<Walk> walk_;
  std::vector<Pack> packs_;  // of this reader
  int64_t targets_ = 0;      // of all
};

// Puts pieces together; every element must come, and every time with the same bits.
class Collector {
 public:
  void Add(const ParameterStore& store, int64_t index, const at::Tensor& piece) {
    const ParameterSlot& slot = store.slot(index);
    if (!piece.defined()) return;
    const std::lock_guard lock(mutex_);
    auto [whole, fresh] = wholes_.try_emplace(slot.name);
    if (fresh) whole->second = at::full(slot.shape, std::nan(""), at::kDouble);
    const at::Tensor before = whole->second.clone();
    PutPart(piece, slot.slice, store.PieceBegin(index), whole->second);
    const at::Tensor known = before.eq(before);
    EXPECT_TRUE(at::equal(before.masked_select(known), whole->second.masked_select(known)))
        << "ranks hold different values of " << slot.name;
  }
  std::map<std::string, at::Tensor> Take() {
    for (const auto& [name, whole] : wholes_)
      EXPECT_TRUE(whole.eq(whole).all().item<bool>()) << "parts of " << name << " are on no rank";
    return std::move(wholes_);
  }

 private:
  std::mutex mutex_;
  std::map<std::string, at::Tensor> wholes_;
};

std::array<int64_t, kAxes> Less(std::array<int64_t, kAxes> a, const std::array<int64_t, kAxes>& b) {
  for (size_t i = 0; i < kAxes; ++i) a[i] -= b[i];
  return a;
}

double Norm(const at::Tensor& x) { return x.norm().item<double>(); }

}  // namespace

std::string TinyGemma(int layers, bool tied_head) {
  std::vector<std::string> types;
  for (int i = 0; i < layers; ++i)
    types.push_back(i % 2 == 0 ? "\"sliding_attention\"" : "\"full_attention\"");
  return absl::StrFormat(
      R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
      "vocab_size": 60, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": %d,
      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 5,
      "query_pre_attn_scalar": 16, "max_position_embeddings": 128, "tie_word_embeddings": %s,
      "layer_types": [%s]})",
      layers, tied_head ? "true" : "false", absl::StrJoin(types, ", "));
}

std::string TinyLlama(int layers, bool tied_head) {
  return absl::StrFormat(
      R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "vocab_size": 60, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": %d,
      "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "rms_norm_eps": 1e-5,
      "max_position_embeddings": 128, "tie_word_embeddings": %s})",
      layers, tied_head ? "true" : "false");
}

Pack RandomPack(int64_t number, int64_t vocab_size) {
  Pack pack;
  pack.number = number;
  const uint64_t key = PhiloxKey(static_cast<uint64_t>(number), "pack");
  for (int doc = 0; doc < 3; ++doc) {
    pack.doc_starts.push_back(static_cast<int32_t>(pack.tokens.size()));
    // Some micro-batches fill 64 rows, some need more.
    const uint64_t length = 2 + PhiloxBits(key, static_cast<uint64_t>(doc), 1) % 34;
    for (uint64_t t = 0; t < length; ++t) {
      const uint64_t bits = PhiloxBits(key, t, 2 + static_cast<uint64_t>(doc));
      pack.tokens.push_back(static_cast<int32_t>(bits % static_cast<uint64_t>(vocab_size)));
      pack.labels.push_back(bits >> 32 & 3 ? pack.tokens.back() : kIgnore);
    }
  }
  return pack;
}

std::string Describe(const Layout& layout) {
  if (!layout.name.empty()) return layout.name;
  std::vector<std::string> parts;
  for (size_t a = 0; a < kAxes; ++a) {
    if (layout.mesh.sizes[a] > 1)
      parts.push_back(absl::StrCat(std::string(kAxisNames[a]), " ", layout.mesh.sizes[a]));
  }
  if (layout.chunks > 1) parts.push_back(absl::StrCat("interleave ", layout.chunks));
  if (layout.walk.recompute == RecomputeMode::kFull) parts.push_back("recompute");
  if (layout.mesh.size(Axis::kShard) > 1)
    parts.push_back(absl::StrCat("ZeRO ", static_cast<int>(layout.zero)));
  parts.push_back(absl::StrCat("micro-batch ", layout.micro_batch));
  return absl::StrJoin(parts, " × ");
}

Outcome Compute(const TinyCase& tiny, const Layout& layout) {
  Outcome outcome;
  Collector gradients, parameters;
  int ranks = 1;
  for (const int size : layout.mesh.sizes) ranks *= size;
  const auto statuses = RunRanks(ranks, [&](Communicator& world) -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(const ModelSpec spec, ParseModelSpec(tiny.config, "config"));
    std::unique_ptr<Communicator> devices;
    if (layout.devices != nullptr) {
      OSLER_ASSIGN_OR_RETURN(devices, layout.devices(world));
    }
    OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create(layout.mesh, world, devices.get()));
    Rank rank(tiny, layout, spec, mesh);
    const auto bytes_before = rank.BytesSent();
    const LossSum loss = rank.Step();
    const auto gradient_bytes = Less(rank.BytesSent(), bytes_before);
    const double norm = rank.Norm();
    const auto collect = [&](Collector& collector, at::Tensor ParameterSlot::*piece) {
      for (size_t i = 0; i < rank.store().slots().size(); ++i) {
        collector.Add(rank.store(), static_cast<int64_t>(i), rank.store().slots()[i].*piece);
      }
    };
    collect(gradients, &ParameterSlot::gradient_piece);
    const std::vector<LossSum> evaluated = rank.Evaluate();
    const auto bytes_between = rank.BytesSent();
    rank.Train(tiny.steps);
    collect(parameters, &ParameterSlot::piece);
    if (world.rank() == 0) {
      outcome.loss = loss;
      outcome.norm = norm;
      outcome.evaluated = evaluated;
      outcome.gradient_bytes = gradient_bytes;
      outcome.update_bytes = Less(rank.BytesSent(), bytes_between);
    }
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
  outcome.gradients = gradients.Take();
  outcome.parameters = parameters.Take();
  return outcome;
}

void ExpectSame(const Outcome& one, const Outcome& other) {
  double global = 0;
  for (const auto& [name, gradient] : one.gradients) global = std::hypot(global, Norm(gradient));
  EXPECT_NEAR(one.norm, global, 1e-12 * global);
  EXPECT_NEAR(other.norm, global, 1e-10 * global);
  EXPECT_NEAR(other.loss.sum, one.loss.sum, 1e-12 * one.loss.sum);
  EXPECT_EQ(other.loss.count, one.loss.count);
  ASSERT_EQ(one.evaluated.size(), other.evaluated.size());
  for (size_t p = 0; p < one.evaluated.size(); ++p) {
    EXPECT_NEAR(other.evaluated[p].sum, one.evaluated[p].sum, 1e-12 * one.evaluated[p].sum);
    EXPECT_EQ(other.evaluated[p].count, one.evaluated[p].count);
  }
  ASSERT_EQ(one.gradients.size(), other.gradients.size());
  for (const auto& [name, gradient] : one.gradients) {
    EXPECT_GT(Norm(gradient), 0) << name;
    const auto found = other.gradients.find(name);
    ASSERT_NE(found, other.gradients.end()) << name;
    EXPECT_LE(Norm(at::sub(found->second, gradient)),
              1e-10 * std::max(Norm(gradient), 1e-6 * global))
        << name;
  }
  for (const auto& [name, value] : one.parameters) {
    EXPECT_LE(Norm(at::sub(other.parameters.at(name), value)), 1e-10 * Norm(value)) << name;
  }
}

LossSum StepAlone(const Model& model, ParameterStore& store, const MicroBatch& batch,
                  double gradient_scale, const WalkOptions& options) {
  const auto world = MakeSingleCommunicator();
  Mesh mesh = *Mesh::Create({}, *world);
  GradientReducer gradients(store, mesh, {});
  const LossSum loss = Walk::Alone(model, store, options)
                           .Run(
                               1, [&](int64_t) { return batch; }, gradient_scale, gradients);
  gradients.Finish();
  return loss;
}

}  // namespace osler::testing
