// Configurations from arbitrary bytes: refused as a config error, or accepted and equal after
// ToYaml and back. An input "a.b=c\nYAML" whose first line holds "=" before any ":" also exercises
// --set.
#include <google/protobuf/util/message_differencer.h>

#include "base/check.h"
#include "base/errors.h"
#include "configs/config.h"
#include "tests/fuzz/fuzz.h"

namespace osler {
namespace {

using google::protobuf::util::MessageDifferencer;

template <typename Parse>
void Check(Parse parse, const std::string& text, const std::vector<std::string>& overrides) {
  const auto config = parse(text, "fuzz.yaml", overrides);
  if (!config.ok()) {
    OSLER_CHECK(ExitCodeOf(config.status()) == ExitCode::kConfig);
    const bool has_place = config.status().message().find("fuzz.yaml") == 0 ||
                           config.status().message().find("--set ") == 0;
    OSLER_CHECK(has_place);
    return;
  }
  const auto again = parse(ToYaml(*config), "again.yaml", {});
  OSLER_CHECK(again.ok());
  OSLER_CHECK(MessageDifferencer::Equals(*config, *again));
}

}  // namespace
}  // namespace osler

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> overrides;
  const size_t line_end = text.find('\n');
  const size_t equals = text.find('=');
  if (line_end != std::string::npos && equals < line_end && text.find(':') > equals) {
    overrides.push_back(text.substr(0, line_end));
    text.erase(0, line_end + 1);
  }
  osler::Check(osler::ParseTrainConfig, text, overrides);
  osler::Check(osler::ParseBuildConfig, text, overrides);
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  const std::string train = R"(# a run
model: {path: DIR}
data:
  train:
    - {path: SHARDS/train, weight: 1.0}
    - path: "a \u2028 \x01 \"b\""
  validation: [{path: SHARDS/validation}]
  sequence_length: 512
  packing: true
  long_records: split
mesh: {pipeline: 1, data: 2, shard: 1, context: 1, tensor: 1}
train: {steps: 20, global_batch: 8, micro_batch: 1, precision: fp32, seed: 7, recompute: none, output: RUN_DIR}
optimizer: {type: adamw, lr: 1.0e-3, betas: [0.9, 0.95], eps: 1.0e-8, weight_decay: .1, clip_norm: 1.}
schedule: {type: cosine, warmup_steps: 2, min_lr_ratio: 0.1}
checkpoint: {every_steps: 5, keep: 3}
)";
  const std::string build = R"(deid: {profile: safe_harbor}
sources:
  - &s {name: visits, format: chat_jsonl, path: visits.jsonl, on_error: skip}
  - {name: fixed, format: tokens_jsonl, path: 't.jsonl', trusted: true, no_target: keep}
split: {validation: 0.1, by: subject, seed: 1}
output: {path: SHARDS, shard_mb: 64}
)";
  return {train, build, "optimizer.lr=2e-4\n" + train, "data.train.2={path: x}\n" + train,
          "sources.0.name=z\n" + build};
}
