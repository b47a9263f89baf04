// ToYaml and back. What other readers make of it is checked in test_to_yaml.py.
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "base/fs.h"
#include "base/philox.h"
#include "configs/config.h"
#include "tests/configs/examples.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using google::protobuf::util::MessageDifferencer;

constexpr char kResolvedExample[] = R"(model:
  path: DIR
data:
  train:
    - path: SHARDS/train
      weight: 1.0
  validation:
    - path: SHARDS/validation
  sequence_length: 512
  packing: true
  shuffle: true
  long_records: truncate
  target: assistant
mesh:
  pipeline: 1
  data: 2
  shard: 1
  context: 1
  tensor: 1
  zero: 1
  interleave: 1
  context_method: auto
train:
  steps: 20
  global_batch: 8
  micro_batch: 1
  precision: fp32
  seed: 7
  recompute: none
  output: RUN_DIR
  early_stop:
    patience: 0
    min_delta: 0.0
  tensorboard: true
  device: auto
  mlp_chunk_tokens: 0
  offload:
    optimizer: false
    activations: false
optimizer:
  type: adamw
  lr: 0.001
  betas: [0.9, 0.95]
  eps: 1.0e-08
  weight_decay: 0.1
  clip_norm: 1.0
schedule:
  type: cosine
  warmup_steps: 2
  min_lr_ratio: 0.1
checkpoint:
  every_steps: 5
  keep: 3
  keep_best: false
  async: true
  keep_every_steps: 0
  most_restarts: 5
validation:
  every_steps: 0
communication:
  connect_seconds: 60.0
  heartbeat_seconds: 1.0
  silence_seconds: 8.0
  timeout_seconds: 600.0
)";

std::vector<std::string> AwkwardTexts() {
  return {"plain/path-1.x",
          "12",
          "1e-3",
          "1:30",
          "0x1F",
          "2024-01-02",
          "true",
          "No",
          "y",
          "null",
          "~",
          "a: b",
          "# c",
          " x ",
          "a\"b\\c",
          "- a",
          "{a}",
          "*x",
          "&y",
          "!z",
          "é/ü/中",
          "tab\there",
          "line\nbreak",
          "\xC2\x85",
          "\xE2\x80\xA8",
          "\xEF\xBB\xBF",
          "\x01\x7f",
          "a,b",
          "%d",
          "@",
          "`",
          "|",
          ">",
          "?",
          "'",
          "<<",
          "=",
          ".inf",
          "-",
          "/abs/olute",
          "_"};
}

config::Train Example() { return *ParseTrainConfig(testing::kTrainExample, "t.yaml", {}); }

TEST(ToYamlTest, PrintsKeysInSchemaOrder) { EXPECT_EQ(ToYaml(Example()), kResolvedExample); }

TEST(ToYamlTest, TheExamplesComeBackEqual) {
  const config::Train train = Example();
  ASSERT_OK_AND_ASSIGN(const config::Train train_again,
                       ParseTrainConfig(ToYaml(train), "t.yaml", {}));
  EXPECT_TRUE(MessageDifferencer::Equals(train, train_again));
  ASSERT_OK_AND_ASSIGN(const config::Build build,
                       ParseBuildConfig(testing::kBuildExample, "b.yaml", {}));
  ASSERT_OK_AND_ASSIGN(const config::Build build_again,
                       ParseBuildConfig(ToYaml(build), "b.yaml", {}));
  EXPECT_TRUE(MessageDifferencer::Equals(build, build_again));
}

TEST(ToYamlTest, EveryDoubleComesBackToTheBit) {
  config::Train c = Example();
  const uint64_t key = PhiloxKey(1, "doubles");
  for (uint64_t i = 0; i < 2000; ++i) {
    const double value =
        std::ldexp(PhiloxUniform(key, i), static_cast<int>(PhiloxBits(key, i, 1) % 2000) - 1000);
    c.mutable_optimizer()->set_lr(value);
    ASSERT_OK_AND_ASSIGN(const config::Train again, ParseTrainConfig(ToYaml(c), "t.yaml", {}));
    ASSERT_EQ(again.optimizer().lr(), value);
  }
  for (const double value : {std::numeric_limits<double>::max(), std::numeric_limits<double>::min(),
                             5e-324, 1e22, 0.0}) {
    c.mutable_optimizer()->set_lr(value);
    ASSERT_OK_AND_ASSIGN(const config::Train again, ParseTrainConfig(ToYaml(c), "t.yaml", {}));
    EXPECT_EQ(again.optimizer().lr(), value);
  }
}

TEST(ToYamlTest, TextThatLooksLikeSomethingElseIsQuoted) {
  config::Train c = Example();
  for (const std::string& text : AwkwardTexts()) {
    c.mutable_train()->set_output(text);
    ASSERT_OK_AND_ASSIGN(const config::Train again, ParseTrainConfig(ToYaml(c), "t.yaml", {}));
    EXPECT_EQ(again.train().output(), text);
  }
}

// Pairs N.yaml and N.json (protobuf's own JSON) of the same message, in OSLER_YAML_DIR when a
// reader waits there.
TEST(ToYamlTest, WritesForOtherReaders) {
  const testing::TempDir temporary;
  const char* waiting = std::getenv("OSLER_YAML_DIR");
  const std::string dir = waiting != nullptr ? waiting : temporary.path();
  const std::unique_ptr<Fs> fs = MakePosixFs();
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  const std::vector<std::string> texts = AwkwardTexts();
  for (size_t i = 0; i < texts.size(); ++i) {
    config::Train c = Example();
    c.mutable_train()->set_output(texts[i]);
    c.mutable_train()->set_seed(~uint64_t{0} - i);
    c.mutable_optimizer()->set_lr(std::ldexp(PhiloxUniform(1, i), 100 - 10 * static_cast<int>(i)));
    c.mutable_optimizer()->set_clip_norm(i % 2 == 0 ? 1e22 : 1e-30);
    std::string json;
    ASSERT_TRUE(google::protobuf::util::MessageToJsonString(c, &json, options).ok());
    const std::string stem = JoinPath(dir, std::to_string(i));
    ASSERT_THAT(WriteFileDurably(*fs, stem + ".yaml", ToYaml(c)), testing::IsOk());
    ASSERT_THAT(WriteFileDurably(*fs, stem + ".json", json), testing::IsOk());
  }
}

TEST(ToYamlTest, EmptyMessagesAreMaps) {
  config::Build c;
  EXPECT_EQ(ToYaml(c), "{}\n");
  c.mutable_split();
  c.add_sources();
  EXPECT_EQ(ToYaml(c), "sources:\n  - {}\nsplit:\n  {}\n");
}

}  // namespace
}  // namespace osler
