#include "trainer/place_model.h"

#include "base/status_macros.h"
#include "model/layout.h"

namespace osler {

absl::StatusOr<StagePlan> PlaceModel(const ModelSpec& spec, const Model& model, const Mesh& mesh,
                                     const PlaceOptions& options, ParameterStore& store) {
  const ModelCoordinates rank{.pipeline = mesh.coordinate(Axis::kPipeline),
                              .shard = mesh.coordinate(Axis::kShard),
                              .tensor = mesh.coordinate(Axis::kTensor)};
  return PlaceModel(spec, model, mesh.shape(), rank, options, store);
}

absl::StatusOr<StagePlan> PlaceModel(const ModelSpec& spec, const Model& model,
                                     const MeshShape& mesh, const ModelCoordinates& rank,
                                     const PlaceOptions& options, ParameterStore& store) {
  OSLER_RETURN_IF_ERROR(CheckLayout(spec, mesh, options.chunks));
  const PipelineShape shape{.stages = mesh.size(Axis::kPipeline), .chunks = options.chunks};
  StagePlan plan = PlanStages(BlockCosts(model, store), HeadCost(model, store), shape);
  StoreLayout layout{.placements = spec.placements,
                     .tensor_rank = rank.tensor,
                     .tensor_size = mesh.size(Axis::kTensor),
                     .shard_rank = rank.shard,
                     .shard_size = mesh.size(Axis::kShard),
                     .zero = options.zero,
                     .stage = {},
                     .device = options.device};
  if (shape.stages > 1) layout.stage = SlotsOfStage(model, plan, rank.pipeline);
  store.LayOut(std::move(layout));
  return plan;
}

}  // namespace osler
