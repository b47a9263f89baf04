#include "trainer/place_model.h"

#include "base/status_macros.h"
#include "model/layout.h"

namespace osler {

absl::StatusOr<StagePlan> PlaceModel(const ModelSpec& spec, const Model& model, const Mesh& mesh,
                                     const PlaceOptions& options, ParameterStore& store) {
  OSLER_RETURN_IF_ERROR(CheckLayout(spec, mesh.shape(), options.chunks));
  const PipelineShape shape{.stages = mesh.shape().size(Axis::kPipeline), .chunks = options.chunks};
  StagePlan plan = PlanStages(BlockCosts(model, store), HeadCost(model, store), shape);
  const Communicator &tensor = mesh.comm(Axis::kTensor), &shard = mesh.comm(Axis::kShard);
  StoreLayout layout{.placements = spec.placements,
                     .tensor_rank = tensor.rank(),
                     .tensor_size = tensor.size(),
                     .shard_rank = shard.rank(),
                     .shard_size = shard.size(),
                     .zero = options.zero,
                     .stage = {}};
  if (shape.stages > 1) layout.stage = SlotsOfStage(model, plan, mesh.comm(Axis::kPipeline).rank());
  store.LayOut(std::move(layout));
  return plan;
}

}  // namespace osler
