// The documented examples, and the smallest configurations that are complete.
#pragma once

#include <string>

namespace osler::testing {

inline constexpr char kTrainExample[] = R"(model: {path: DIR}
data: {train: [{path: SHARDS/train, weight: 1.0}], validation: [{path: SHARDS/validation}], sequence_length: 512, packing: true, shuffle: true}   # shuffle: false = file order
mesh: {pipeline: 1, data: 2, shard: 1, context: 1, tensor: 1}
train: {steps: 20, global_batch: 8, micro_batch: 1, precision: fp32, seed: 7, recompute: none, output: RUN_DIR}   # batches count packed sequences; precision fp32|bf16|fp64
optimizer: {type: adamw, lr: 1.0e-3, betas: [0.9, 0.95], eps: 1.0e-8, weight_decay: 0.1, clip_norm: 1.0}
schedule: {type: cosine, warmup_steps: 2, min_lr_ratio: 0.1}
checkpoint: {every_steps: 5, keep: 3}
)";

inline constexpr char kBuildExample[] = R"(deid: {profile: safe_harbor}
sources:
  - {name: visits, format: chat_jsonl, path: visits.jsonl}                 # {"id","subject","messages":[{"role","content"}…], "known":{"name":[…],"id":[…]} optional}
  - {name: fixed,  format: tokens_jsonl, path: t.jsonl, trusted: true}     # {"id","subject","input_ids":[…],"labels":[…, -100 = ignore]}; "trusted" stands in the certificate
split: {validation: 0.1, by: subject, seed: 1}                             # optional
output: {path: SHARDS, shard_mb: 64}
)";

// Six lines; a key added after them stands in line 7.
inline constexpr char kTrainMinimum[] = R"(model:
  path: DIR
data:
  train:
    - path: SHARDS/train
train: {steps: 3, output: RUN}
)";

inline constexpr char kBuildMinimum[] = R"(sources:
  - {name: visits, format: chat_jsonl, path: visits.jsonl}
output: {path: SHARDS}
)";

}  // namespace osler::testing
