// What a rank of the mesh holds of a model.
#pragma once

#include "absl/status/statusor.h"
#include "model/block.h"
#include "model/parameter_store.h"
#include "model/registry.h"
#include "parallel/mesh.h"
#include "trainer/stage_plan.h"

namespace osler {

struct PlaceOptions {
  ZeroLevel zero = ZeroLevel::kOptimizer;
  int chunks = 1;  // of a stage of the pipeline
  at::Device device = at::kCPU;
};

// Where a rank stands on the axes that cut a model.
struct ModelCoordinates {
  int pipeline = 0, shard = 0, tensor = 0;
};

// Lays `store`, which `model` was built in and which has no values yet, out for this rank: its
// slices along the tensor axis, its pieces along the shard axis, its stage of the pipeline. Returns
// the plan of the stages, the same on every rank. Config error: CheckLayout. No communication.
absl::StatusOr<StagePlan> PlaceModel(const ModelSpec& spec, const Model& model, const Mesh& mesh,
                                     const PlaceOptions& options, ParameterStore& store);
// The same for any rank of any mesh, without one.
absl::StatusOr<StagePlan> PlaceModel(const ModelSpec& spec, const Model& model,
                                     const MeshShape& mesh, const ModelCoordinates& rank,
                                     const PlaceOptions& options, ParameterStore& store);

}  // namespace osler
