#include "trainer/plan/step_time.h"

#include <algorithm>

#include "base/status_macros.h"
#include "trainer/micro_batch.h"

namespace osler {
namespace {

// One stage's part in a step.
class StageTime {
 public:
  StageTime(const PlanModel& model, const PlanBatch& batch, const PlanLayout& layout,
            const PlanFlops& flops, const PlanHardware& hardware, const StagePlan& stages,
            int stage)
      : model_(model),
        batch_(batch),
        layout_(layout),
        flops_(flops),
        hardware_(hardware),
        passes_(static_cast<double>(batch.passes(layout.readers()))),
        last_(stage == stages.shape.stages - 1),
        first_(stage == 0) {
    for (int chunk = 0; chunk < stages.shape.chunks; ++chunk) {
      const StagePlan::Range range = stages.BlocksOf(stages.VirtualStage(stage, chunk));
      // Blocks but the embedding and the last norm are layers.
      layers_ += static_cast<double>(range.end - range.begin);
    }
    layers_ -= (first_ ? 1 : 0) + (last_ ? 1 : 0);
    layers_ = std::max(layers_, 0.0);
    const auto tokens = batch.step.micro_batch * batch.sequence_length;
    tokens_ = static_cast<double>(tokens);
    const int64_t own = (tokens + Size(Axis::kContext) - 1) / Size(Axis::kContext);
    rows_ = static_cast<double>(RowsFor(own, Size(Axis::kTensor)));
  }

  StepTime Compute(const SlotSizes& slots, const std::vector<int64_t>& present) const {
    StepTime time;
    time.compute_s = passes_ * MicroBatchFlops() / (hardware_.peak_flops * hardware_.mfu);
    CountReductions(slots, present, time);
    // Gradients are summed along the context axis as along data.
    const double context_sums = Seconds(time, Axis::kContext);
    CountExchanges(time);
    time.exchange_s = -context_sums;
    for (const Axis axis : {Axis::kTensor, Axis::kContext, Axis::kPipeline})
      time.exchange_s += Seconds(time, axis);
    const double waits =
        static_cast<double>(Size(Axis::kPipeline) - 1) / static_cast<double>(layout_.place.chunks);
    time.bubble_s = (time.compute_s + time.exchange_s) * waits / passes_;
    const double reduction =
        Seconds(time, Axis::kData) + Seconds(time, Axis::kShard) + context_sums;
    time.reduce_s =
        std::max(reduction * (1 - hardware_.hidden), reduction - time.compute_s - time.exchange_s);
    return time;
  }

 private:
  int Size(Axis axis) const { return layout_.mesh.size(axis); }
  double SizeOf(Axis axis) const { return static_cast<double>(Size(axis)); }

  // Of one rank.
  double MicroBatchFlops() const {
    PlanFlops own = flops_;
    const double share = layers_ / static_cast<double>(model_.spec.layers);
    own.matrices *= share;
    own.gate_up *= share;
    own.attention *= share;
    if (!last_) own.head = 0;
    return own.Computed(batch_, layout_.recompute) * tokens_ /
           (SizeOf(Axis::kContext) * SizeOf(Axis::kTensor));
  }

  // The axis' groups stay inside a node, or not.
  double BytesASecond(Axis axis) const {
    int64_t span = 1;
    for (int a = kAxes - 1; a >= static_cast<int>(axis); --a)
      span *= layout_.mesh.sizes[static_cast<size_t>(a)];
    return span <= hardware_.node_ranks ? hardware_.node_bytes : hardware_.link_bytes;
  }
  double Seconds(const StepTime& time, Axis axis) const {
    return time.bytes[static_cast<size_t>(axis)] / BytesASecond(axis);
  }

  // docs/parallelism.md, "Bytes sent", of one of n ranks: an all-reduce of b bytes sends 2 b (n −
  // 1) / n, an all-gather or reduce-scatter of a whole of b bytes b (n − 1) / n.
  void CountReductions(const SlotSizes& slots, const std::vector<int64_t>& present,
                       StepTime& time) const {
    double pieces = 0;
    for (const int64_t slot : present) {
      const auto at = static_cast<size_t>(slot);
      if (slots.trained[at]) pieces += static_cast<double>(slots.pieces[at]);
    }
    const bool narrow = batch_.step.reduction == ReductionType::kBf16;
    const double sent = pieces * static_cast<double>(narrow ? 2 : batch_.sum_bytes());
    const double gathered = pieces * static_cast<double>(batch_.element_bytes());
    const double data = SizeOf(Axis::kData), shard = SizeOf(Axis::kShard);
    const double context = SizeOf(Axis::kContext);
    time.bytes[static_cast<size_t>(Axis::kData)] += 2 * sent * (data - 1) / data;
    time.bytes[static_cast<size_t>(Axis::kContext)] += 2 * sent * (context - 1) / context;
    double& bytes = time.bytes[static_cast<size_t>(Axis::kShard)];
    switch (layout_.place.zero) {
      case ZeroLevel::kOptimizer: bytes = (shard - 1) * (sent + gathered); break;
      case ZeroLevel::kGradients: bytes = (shard - 1) * (passes_ * sent + gathered); break;
      case ZeroLevel::kParameters: bytes = (shard - 1) * passes_ * (sent + 2 * gathered); break;
    }
  }

  void CountExchanges(StepTime& time) const {
    const double element = static_cast<double>(batch_.element_bytes());
    const double value = rows_ * static_cast<double>(model_.model.hidden_size) * element;
    const double forwards = layout_.recompute == RecomputeMode::kNone ? 1 : 2;
    const double tensor = SizeOf(Axis::kTensor), stages = SizeOf(Axis::kPipeline);
    time.bytes[static_cast<size_t>(Axis::kTensor)] =
        passes_ * (forwards + 1) * (4 * layers_ + (first_ ? 1 : 0)) * value * (tensor - 1) / tensor;
    if (stages > 1)
      time.bytes[static_cast<size_t>(Axis::kPipeline)] =
          passes_ * 2 * static_cast<double>(layout_.place.chunks) * value / tensor;
    CountKeys(layout_.recompute == RecomputeMode::kFull ? 2 : 1, time);
  }

  // Keys and values forward, again back, and their gradients home, which are fp32.
  void CountKeys(double forwards, StepTime& time) const {
    const double context = SizeOf(Axis::kContext);
    const double heads =
        std::max(1.0, static_cast<double>(model_.spec.key_value_heads) / SizeOf(Axis::kTensor));
    const double width = 2 * heads * static_cast<double>(model_.model.head_dim);
    const double trip = (forwards + 1) * static_cast<double>(batch_.element_bytes()) +
                        static_cast<double>(batch_.sum_bytes());
    double keys = 0;
    for (const Model::LayerKind& kind : model_.model.layer_kinds) {
      const double seen = kind.window.has_value()
                              ? std::min(tokens_, 2 * static_cast<double>(*kind.window))
                              : tokens_;
      keys += seen * static_cast<double>(kind.layers);
    }
    time.bytes[static_cast<size_t>(Axis::kContext)] += passes_ * keys * layers_ /
                                                       static_cast<double>(model_.spec.layers) *
                                                       width * trip * (context - 1) / context;
  }

  const PlanModel& model_;
  const PlanBatch& batch_;
  const PlanLayout& layout_;
  const PlanFlops& flops_;
  const PlanHardware& hardware_;
  const double passes_;
  const bool last_, first_;
  double layers_ = 0, tokens_ = 0, rows_ = 0;
};

}  // namespace

absl::StatusOr<StepTime> EstimateStep(PlanSpace& space, const PlanLayout& layout,
                                      const PlanFlops& flops, const PlanHardware& hardware) {
  OSLER_RETURN_IF_ERROR(space.Check(layout));
  OSLER_ASSIGN_OR_RETURN(const SlotSizes* slots, space.Slots(layout));
  const StageSlots& stages = space.Stages(layout);
  StepTime slowest;
  for (int stage = 0; stage < layout.mesh.size(Axis::kPipeline); ++stage) {
    const StepTime time =
        StageTime(space.model(), space.batch(), layout, flops, hardware, stages.plan, stage)
            .Compute(*slots, stages.slots[static_cast<size_t>(stage)]);
    if (time.total_s() > slowest.total_s()) slowest = time;
  }
  return slowest;
}

}  // namespace osler
