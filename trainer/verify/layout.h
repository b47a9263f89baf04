// A layout to verify, and how people write one: parts joined by dots, "shard2.tensor2.zero3".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/context_attention.h"
#include "parallel/mesh.h"
#include "trainer/walk.h"

namespace osler {

struct VerifyLayout {
  std::string name;  // in the order of the mesh, then the options: "shard2.tensor2.zero3"
  MeshShape shape;
  int zero = 1;        // 1, 2 or 3: what is cut along the shard axis
  int interleave = 1;  // chunks of a stage of the pipeline
  ContextMethod context_method = ContextMethod::kAuto;
  RecomputeMode recompute = RecomputeMode::kNone;

  int ranks() const;
};

// An axis and its size (pipeline, data, shard, context, tensor), zero1 … zero3 with shard,
// interleaveN with pipeline, ring or gather with context, and recompute or selective
// (train.recompute full and selective). Config errors say what is wrong with which part, and what
// is allowed.
absl::StatusOr<VerifyLayout> ParseVerifyLayout(std::string_view text);

// One or more of them between commas.
absl::StatusOr<std::vector<VerifyLayout>> ParseVerifyLayouts(std::string_view list);

// What `osler verify` runs when no layouts are asked for, as a list: every axis by itself, ZeRO 1
// to 3, both ways of context, and mixtures of up to eight ranks.
std::string_view StandardVerifyLayouts();

}  // namespace osler
