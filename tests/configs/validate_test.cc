// The rules beyond types: which values are impossible, and which odd ones are fine.
#include <gtest/gtest.h>

#include <ostream>

#include "configs/config.h"
#include "configs/validate.h"
#include "tests/configs/examples.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::testing::AllOf;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::StartsWith;

absl::StatusOr<config::Train> Train(const std::string& text) {
  return ParseTrainConfig(text, "t.yaml", {});
}
absl::StatusOr<config::Build> Build(const std::string& text) {
  return ParseBuildConfig(text, "b.yaml", {});
}

struct Case {
  const char* flag;
  const char* advice;
};

void PrintTo(const Case& one, std::ostream* out) { *out << one.flag; }

class TrainRuleTest : public ::testing::TestWithParam<Case> {};

TEST_P(TrainRuleTest, IsRefused) {
  const std::string flag = GetParam().flag;
  const std::string key = flag.substr(0, flag.find('='));
  EXPECT_THAT(ParseTrainConfig(testing::kTrainExample, "t.yaml", {flag}),
              Fails(ExitCode::kConfig,
                    AllOf(StartsWith("--set " + flag + ": " + key), HasSubstr(GetParam().advice))));
}

INSTANTIATE_TEST_SUITE_P(
    Impossible, TrainRuleTest,
    ::testing::Values(
        Case{"model.path=''", "is missing"}, Case{"data.train=[]", "osler data build"},
        Case{"data.train=[{weight: 1}]", "is missing"},
        Case{"data.validation=[{name: a}]", "data.validation.0.path"},
        Case{"data.validation.0.name=a/b", "letters"}, Case{"data.validation.0.name=''", "letters"},
        Case{"data.validation.1={path: x/SHARDS}", "'SHARDS' is the name of data.validation.0 too"},
        Case{"validation.every_steps=-1", "use 0"}, Case{"train.early_stop.patience=-1", "use 0"},
        Case{"train.early_stop.min_delta=-1", "0 or more"}, Case{"train.freeze=['']", "is empty"},
        Case{"train.train_only=[a, '']", "is empty"},
        Case{"optimizer.groups=[{lr_scale: 1}]", "is missing"},
        Case{"optimizer.groups=[{match: a, lr_scale: 0}]", "train.freeze"},
        Case{"optimizer.groups=[{match: a, weight_decay: -1}]", "0 or more"},
        Case{"data.train.0.weight=0", "above 0"}, Case{"data.train.0.weight=-1", "above 0"},
        Case{"data.sequence_length=1", "2 or more"},
        Case{"data.template=llama", "use gemma, llama3 or chatml"},
        Case{"data.template_date='26 Jul 2024'", "YYYY-MM-DD"},
        Case{"data.template_date='2024-13-01'", "YYYY-MM-DD"}, Case{"train.steps=0", "1 or more"},
        Case{"train.steps=-4", "1 or more"}, Case{"train.global_batch=0", "impossible batch"},
        Case{"train.micro_batch=0", "impossible batch"},
        Case{"train.micro_batch=9", "more than train.global_batch, 8"},
        Case{"train.global_batch=9223372036854775807", "impossible batch"},
        Case{"train.output=''", "is missing"}, Case{"optimizer.lr=-1e-9", "0 or more"},
        Case{"optimizer.betas=[0.9]", "takes two"},
        Case{"optimizer.betas=[0.9, 0.9, 0.9]", "takes two"},
        Case{"optimizer.betas=[0.9, 1]", "below 1"}, Case{"optimizer.betas=[-0.1, 0.9]", "below 1"},
        Case{"optimizer.eps=0", "above 0"}, Case{"optimizer.weight_decay=-0.1", "0 or more"},
        Case{"optimizer.clip_norm=-1", "0 for no clipping"},
        Case{"schedule.warmup_steps=-1", "no warm-up"},
        Case{"schedule.min_lr_ratio=1.1", "from 0 to 1"},
        Case{"schedule.min_lr_ratio=-0.1", "from 0 to 1"},
        Case{"checkpoint.every_steps=-1", "use 0"}, Case{"checkpoint.keep=-1", "use 0"}));

INSTANTIATE_TEST_SUITE_P(
    Mesh, TrainRuleTest,
    ::testing::Values(Case{"mesh.data=0", "1 or more"}, Case{"mesh.tensor=0", "1 or more"},
                      Case{"mesh.zero=0", "no ZeRO level"}, Case{"mesh.zero=4", "no ZeRO level"},
                      Case{"mesh.zero=2", "no effect while mesh.shard is 1"},
                      Case{"mesh.interleave=0", "1 or more"},
                      Case{"mesh.interleave=2", "no effect while mesh.pipeline is 1"},
                      Case{"mesh.context_method=ring", "no effect while mesh.context is 1"},
                      Case{"train.gradient_reduction=fp64", "delete this"},
                      Case{"train.mlp_chunk_tokens=-1", "0 for all tokens"},
                      Case{"train.offload.optimizer=true", "no effect while train.device is cpu"},
                      Case{"train.offload={activations: true}", "no effect while train.device"},
                      Case{
                          "train={steps: 1, output: r, device: cuda, offload: {activations: true}}",
                          "set train.recompute: full or selective"},
                      Case{"checkpoint.keep_every_steps=-1", "0 to keep none"},
                      Case{"checkpoint={keep: 0, keep_every_steps: 5}", "no effect"},
                      Case{"checkpoint.most_restarts=-1", "0 for any number"},
                      Case{"mesh.data=-2", "1 or more"}));

TEST(TrainRulesTest, OddButPossibleValuesAreFine) {
  for (const char* flag :
       {"optimizer.lr=1e-30", "optimizer.lr=0", "schedule.warmup_steps=0",
        "schedule.warmup_steps=1000", "optimizer.betas=[0, 0]", "optimizer.weight_decay=0",
        "optimizer.clip_norm=0", "checkpoint.keep=0", "checkpoint.every_steps=0",
        "data.validation=[]", "train.micro_batch=3", "train.micro_batch=8",
        "schedule.min_lr_ratio=1", "data.sequence_length=2", "mesh.data=3",
        "mesh={pipeline: 2, shard: 3, context: 5, tensor: 7, zero: 3, interleave: 2, "
        "context_method: gather}",
        "train.gradient_reduction=bf16", "train.mlp_chunk_tokens=512",
        "train={steps: 1, output: r, device: cuda, recompute: full, offload: {optimizer: true, "
        "activations: true}}"}) {
    EXPECT_THAT(ParseTrainConfig(testing::kTrainExample, "t.yaml", {flag}), IsOk()) << flag;
  }
}

TEST(TrainRulesTest, ValidationSourcesAreNamedAfterTheirBuild) {
  const auto name = [](const std::string& path) {
    config::ValidationSource source;
    source.set_path(path);
    return ValidationName(source);
  };
  EXPECT_EQ(name("work/medqa/validation"), "medqa");
  EXPECT_EQ(name("/data/medqa-dev/train/"), "medqa-dev");
  EXPECT_EQ(name("validation"), "validation");
  EXPECT_EQ(name("work/a b.1"), "a_b.1");
  EXPECT_EQ(name("/"), "");
  EXPECT_THAT(ParseTrainConfig(testing::kTrainExample, "t.yaml",
                               {"data.validation=[{path: a/validation}, {path: b/validation}]"}),
              IsOk());
}

TEST(TrainRulesTest, WhatNeedsAnotherSettingSaysSo) {
  const std::string start = "model: {path: m}\ndata: {train: [{path: d}]}\n";
  const struct {
    std::string text, message;
  } kCases[] = {{"train: {steps: 1, output: r}\ncheckpoint: {keep_best: true}\n",
                 "t.yaml:4: checkpoint.keep_best: needs data.validation"},
                {"train: {steps: 1, output: r}\nvalidation: {every_steps: 2}\n",
                 "t.yaml:4: validation.every_steps: needs data.validation"},
                {"train:\n  {steps: 1, output: r,\n  early_stop: {patience: 2}}\n",
                 "t.yaml:5: train.early_stop.patience: needs data.validation"},
                {"train: {steps: 1, output: r, precision: fp64,\n  gradient_reduction: bf16}\n",
                 "t.yaml:4: train.gradient_reduction: would round"},
                {"train: {steps: 1, output: r, freeze: [a],\n  train_only: [b]}\n",
                 "t.yaml:4: train.train_only: excludes train.freeze"}};
  for (const auto& one : kCases) {
    EXPECT_THAT(Train(start + one.text), Fails(ExitCode::kConfig, StartsWith(one.message)));
  }
}

TEST(TrainRulesTest, NameTheLineOfTheSetting) {
  EXPECT_THAT(Train("model: {path: m}\ndata:\n  train:\n    - path: d\n      weight: -2\n"
                    "train: {steps: 1, output: r}\n"),
              Fails(ExitCode::kConfig, StartsWith("t.yaml:5: data.train.0.weight: -2 ")));
  EXPECT_THAT(
      Train("model: {path: m}\ndata:\n  train:\n    - path: d\ntrain:\n  steps: 1\n  output: r\n"
            "mesh:\n  tensor: -2\n"),
      Fails(ExitCode::kConfig, StartsWith("t.yaml:9: mesh.tensor: -2 ")));
}

TEST(TrainRulesTest, AMissingKeyIsPlacedAtTheMapThatLacksIt) {
  EXPECT_THAT(Train("data: {train: [{path: d}]}\ntrain: {steps: 1, output: r}\n"),
              Fails(ExitCode::kConfig, StartsWith("t.yaml: model.path: is missing")));
  EXPECT_THAT(Train("model: {path: m}\n\ndata: {packing: true}\ntrain: {steps: 1, output: r}\n"),
              Fails(ExitCode::kConfig, StartsWith("t.yaml:3: data.train: lists no shards")));
  EXPECT_THAT(Train("model: {path: m}\ndata:\n  train:\n  - path: d\n  - weight: 1\ntrain: {steps: "
                    "1, output: r}\n"),
              Fails(ExitCode::kConfig, StartsWith("t.yaml:5: data.train.1.path: is missing")));
  EXPECT_THAT(Train("model: {path: m}\ndata: {train: [{path: d}]}\ntrain:\n  output: r\n"),
              Fails(ExitCode::kConfig, StartsWith("t.yaml:3: train.steps: is missing")));
  EXPECT_THAT(Train("model: {path: m}\ndata: {train: [{path: d}]}\ntrain:\n  steps: 1\n"),
              Fails(ExitCode::kConfig, StartsWith("t.yaml:3: train.output: is missing")));
}

TEST(BuildRulesTest, RefuseImpossibleBuilds) {
  const std::string good = "{name: a, format: chat_jsonl, path: p}";
  const struct {
    std::string text, message;
  } kCases[] = {
      {"output: {path: o}\n", "b.yaml: sources: lists nothing to read"},
      {"sources: []\noutput: {path: o}\n", "b.yaml:1: sources: lists nothing to read"},
      {"sources:\n- {format: chat_jsonl, path: p}\noutput: {path: o}\n",
       "b.yaml:2: sources.0.name: is missing"},
      {"sources:\n- {name: a, path: p}\noutput: {path: o}\n",
       "b.yaml:2: sources.0.format: is missing"},
      {"sources:\n- {name: a, format: chat_jsonl}\noutput: {path: o}\n",
       "b.yaml:2: sources.0.path: is missing"},
      {"sources:\n- " + good + "\n- " + good + "\noutput: {path: o}\n",
       "b.yaml:3: sources.1.name: 'a' is the name of sources.0 too"},
      {"sources:\n- {name: a, format: tokens_jsonl, path: p}\noutput: {path: o}\n",
       "b.yaml:2: sources.0.trusted: must be true for tokens_jsonl"},
      {"sources:\n- {name: a, format: tokens_jsonl, path: p,\n   trusted: false}\noutput: {path: "
       "o}\n",
       "b.yaml:3: sources.0.trusted: must be true for tokens_jsonl"},
      {"sources: [" + good + "]\nsplit: {validation: 1}\noutput: {path: o}\n",
       "b.yaml:2: split.validation: 1 "},
      {"sources: [" + good + "]\nsplit: {validation: -0.1}\noutput: {path: o}\n",
       "b.yaml:2: split.validation: -0.1 "},
      {"sources: [" + good + "]\n", "b.yaml: output.path: is missing"},
      {"sources: [" + good + "]\noutput: {path: o, shard_mb: 0}\n",
       "b.yaml:2: output.shard_mb: 0 "},
      {"sources: [" + good + "]\noutput: {path: o, shard_mb: 9223372036854775807}\n",
       "b.yaml:2: output.shard_mb: "},
      {"sources: [" + good + "]\ndeid: {profile: none}\noutput: {path: o}\n",
       "b.yaml:2: deid.profile: expected safe_harbor, found 'none'"},
  };
  for (const auto& one : kCases) {
    EXPECT_THAT(Build(one.text), Fails(ExitCode::kConfig, StartsWith(one.message)));
  }
  EXPECT_THAT(
      Build("sources: [" + good + "]\nsplit: {validation: 0}\noutput: {path: o, shard_mb: 1}\n"),
      IsOk());
}

}  // namespace
}  // namespace osler
