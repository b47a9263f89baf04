#include "trainer/pipeline_schedule.h"

#include <algorithm>

namespace osler {
namespace {

using Kind = PipelineAction::Kind;

// A group of micro-batches passes chunk after chunk.
std::vector<PipelineAction> Order(const PipelineShape& shape, int64_t groups, Kind kind) {
  std::vector<PipelineAction> order;
  for (int64_t group = 0; group < groups; ++group) {
    for (int i = 0; i < shape.chunks; ++i) {
      const int chunk = kind == Kind::kForward ? i : shape.chunks - 1 - i;
      for (int j = 0; j < shape.stages; ++j) {
        order.push_back({kind, group * shape.stages + j, chunk});
      }
    }
  }
  return order;
}

int64_t Groups(const PipelineShape& shape, int64_t micro_batches) {
  return (micro_batches + shape.stages - 1) / shape.stages;
}

void DropBeyond(std::vector<PipelineAction>& actions, int64_t micro_batches) {
  std::erase_if(actions, [&](const PipelineAction& a) { return a.micro_batch >= micro_batches; });
}

}  // namespace

std::vector<PipelineAction> PipelineSchedule(const PipelineShape& shape, int64_t micro_batches,
                                             int rank) {
  const int64_t groups = Groups(shape, micro_batches);
  const auto forward = Order(shape, groups, Kind::kForward);
  const auto backward = Order(shape, groups, Kind::kBackward);
  // Forward alone until the pipeline is full, then in turns, then back alone.
  const auto lead = std::min(forward.size(), static_cast<size_t>(MaxInFlight(shape, rank)) - 1);
  std::vector<PipelineAction> actions(forward.begin(),
                                      forward.begin() + static_cast<std::ptrdiff_t>(lead));
  for (size_t k = 0; k < backward.size(); ++k) {
    if (lead + k < forward.size()) actions.push_back(forward[lead + k]);
    actions.push_back(backward[k]);
  }
  DropBeyond(actions, micro_batches);
  return actions;
}

std::vector<PipelineAction> ForwardSchedule(const PipelineShape& shape, int64_t micro_batches) {
  auto actions = Order(shape, Groups(shape, micro_batches), Kind::kForward);
  DropBeyond(actions, micro_batches);
  return actions;
}

int64_t MaxInFlight(const PipelineShape& shape, int rank) {
  const int64_t after = shape.stages - 1 - rank;
  if (shape.chunks == 1) return after + 1;
  return 2 * after + int64_t{shape.chunks - 1} * shape.stages + 1;
}

}  // namespace osler
