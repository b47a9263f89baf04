// The predicted bytes of tensors against those that a step really makes, counted tensor by tensor
// over thread ranks: every family, axis and option by itself and mixed.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/substitute.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "configs/config.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "tests/testing/tensor_memory.h"
#include "trainer/parameter_groups.h"
#include "trainer/plan/space.h"
#include "trainer/verify/layout.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;
using ::osler::testing::RunRanks;
using ::osler::testing::TensorMemory;

constexpr int64_t kLength = 256, kVocabulary = 1024;

std::string Config(const std::string& family) {
  const std::string sizes = absl::Substitute(
      R"("vocab_size": $0, "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4,
         "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16,
         "max_position_embeddings": 1024, "rms_norm_eps": 1e-5)",
      kVocabulary);
  if (family == "gemma3") {
    return absl::StrCat(R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
        "query_pre_attn_scalar": 16, "sliding_window": 64, "layer_types": ["sliding_attention",
        "full_attention", "sliding_attention", "full_attention"], )",
                        sizes, "}");
  }
  const std::map<std::string, std::string> classes = {
      {"llama", "LlamaForCausalLM"}, {"qwen2", "Qwen2ForCausalLM"}, {"qwen3", "Qwen3ForCausalLM"}};
  return absl::Substitute(
      R"({"architectures": ["$0"], "model_type": "$1", "tie_word_embeddings": $2, $3})",
      classes.at(family), family, family == "qwen3" ? "false" : "true", sizes);
}

struct Case {
  std::string family, layout;
  std::vector<std::string> settings;
};

absl::StatusOr<config::Train> ConfigOf(const Case& c) {
  std::vector<std::string> settings = c.settings;
  settings.push_back(absl::StrCat("data.sequence_length=", kLength));
  return ParseTrainConfig(
      "{model: {path: m}, data: {train: [{path: d}]}, train: {steps: 1, global_batch: 8, output: "
      "o}}",
      "test", settings);
}

PlanLayout LayoutOf(const VerifyLayout& layout) {
  return {layout.shape, {static_cast<ZeroLevel>(layout.zero), layout.interleave}, layout.recompute};
}

Pack FullPack(int64_t number) {
  Pack pack{.number = number, .tokens = {}, .labels = {}, .doc_starts = {0}};
  for (int64_t t = 0; t < kLength; ++t)
    pack.tokens.push_back(static_cast<int32_t>((t * 31 + number) % kVocabulary));
  pack.labels = pack.tokens;
  pack.labels[0] = kIgnore;
  return pack;
}

// One rank's step, as Trainer makes it.
absl::Status Step(const config::Train& config, const PlanBatch& batch, const PlanLayout& layout,
                  Communicator& world, int64_t& peak, int& stage) {
  at::set_num_threads(1);  // of whose scratch the prediction has one
  OSLER_ASSIGN_OR_RETURN(const ModelSpec spec,
                         ParseModelSpec(config.model().path(), "config.json"));
  OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create(layout.mesh, world));
  stage = mesh.coordinate(Axis::kPipeline);
  ParameterStore store;
  const Model model = spec.build(store);
  OSLER_ASSIGN_OR_RETURN(const auto groups, GroupParameters(config, store));
  OSLER_ASSIGN_OR_RETURN(const StagePlan stages,
                         PlaceModel(spec, model, mesh, layout.place, store));
  const ReaderShare reader = ReaderOf(mesh);
  std::vector<Pack> packs;
  for (int64_t g = reader.index; g < batch.global_batch; g += reader.count)
    packs.push_back(FullPack(g));

  TensorMemory memory;
  InitializeParameters(store, spec, 1, batch.dtype);
  memory.TakePeak();
  StepOptions options = batch.step;
  options.walk.recompute = layout.recompute;
  TrainStep step(model, store, mesh, stages, options, groups);
  const auto result = step.Run(packs, {.number = 1,
                                       .lr = 1e-3,
                                       .packs = batch.global_batch,
                                       .targets = batch.global_batch * (kLength - 1)});
  peak = memory.TakePeak();
  return result.status();
}

class MemoryTest : public ::testing::TestWithParam<Case> {};

TEST_P(MemoryTest, TensorsAreAsPredicted) {
  auto config = ConfigOf(GetParam());
  ASSERT_THAT(config, IsOk());
  config->mutable_model()->set_path(Config(GetParam().family));
  const auto spec = ParseModelSpec(config->model().path(), "config.json");
  ASSERT_THAT(spec, IsOk());
  const auto model = MakePlanModel(*config, *spec);
  ASSERT_THAT(model, IsOk());
  const auto parsed = ParseVerifyLayout(GetParam().layout);
  ASSERT_THAT(parsed, IsOk());
  const PlanLayout layout = LayoutOf(*parsed);
  PlanBatch batch = PlanBatchOf(*config);
  batch.step.context_method = parsed->context_method;
  batch.staged = StagedCopy::kNever;  // a step saves nothing
  PlanSpace space(*model, batch);
  const auto predicted = PredictMemory(space, layout);
  ASSERT_THAT(predicted, IsOk());

  std::vector<int64_t> peaks(static_cast<size_t>(layout.ranks()));
  std::vector<int> stages(peaks.size());
  for (const absl::Status& status : RunRanks(layout.ranks(), [&](Communicator& world) {
         const auto rank = static_cast<size_t>(world.rank());
         return Step(*config, batch, layout, world, peaks[rank], stages[rank]);
       })) {
    ASSERT_THAT(status, IsOk());
  }
  for (size_t r = 0; r < peaks.size(); ++r) {
    const RankMemory& rank = (*predicted)[static_cast<size_t>(stages[r])];
    const int64_t expected = rank.tensors() - (peaks.size() > 1 ? kCollectiveScratch : 0);
    std::string uses;
    for (size_t u = 0; u < kUseNames.size(); ++u)
      absl::StrAppend(&uses, " ", std::string(kUseNames[u]), " ", rank.peak[u] / 1000);
    const double ratio = static_cast<double>(expected) / static_cast<double>(peaks[r]);
    std::printf("%s %s rank %zu: %.3f of %lld KB, at %s:%s\n", GetParam().family.c_str(),
                GetParam().layout.c_str(), r, ratio, static_cast<long long>(peaks[r] / 1000),
                rank.place.c_str(), uses.c_str());
    EXPECT_GT(ratio, 0.97);
    EXPECT_LT(ratio, 1.03);
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* family : {"llama", "gemma3", "qwen2", "qwen3"}) {
    for (const char* layout : {"data1",
                               "recompute",
                               "selective",
                               "context2.ring.selective",
                               "tensor2.selective",
                               "pipeline2.selective",
                               "data2",
                               "shard2",
                               "shard2.zero2",
                               "shard2.zero3",
                               "shard2.zero3.recompute",
                               "tensor2",
                               "tensor4.recompute",
                               "context2",
                               "context2.ring",
                               "context2.recompute",
                               "pipeline2",
                               "pipeline2.interleave2.recompute",
                               "pipeline2.tensor2",
                               "pipeline2.shard2.zero3",
                               "data2.context2"}) {
      cases.push_back({family, layout, {}});
    }
  }
  for (const char* setting :
       {"train.precision=bf16", "train.precision=fp64", "train.micro_batch=2",
        "train.mlp_chunk_tokens=64", "train.freeze=[\"model.layers.0.*\", \"model.embed*\"]"}) {
    for (const char* layout : {"data1", "recompute", "selective", "shard2.zero3", "tensor2"})
      cases.push_back({"llama", layout, {setting}});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, MemoryTest, ::testing::ValuesIn(Cases()));

}  // namespace
}  // namespace osler
