#include "trainer/run_layout.h"

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace osler {
namespace {

ContextMethod MethodOf(config::ContextMethod method) {
  switch (method) {
    case config::AUTO: return ContextMethod::kAuto;
    case config::RING: return ContextMethod::kRing;
    case config::GATHER: return ContextMethod::kGather;
  }
  return ContextMethod::kAuto;
}

RecomputeMode RecomputeOf(config::Recompute setting) {
  switch (setting) {
    case config::FULL: return RecomputeMode::kFull;
    case config::SELECTIVE: return RecomputeMode::kSelective;
    default: return RecomputeMode::kNone;
  }
}

}  // namespace

absl::StatusOr<MeshShape> MeshShapeOf(const config::Mesh& mesh, int world_size) {
  MeshShape shape;
  shape.sizes = {mesh.pipeline(), mesh.data(), mesh.shard(), mesh.context(), mesh.tensor()};
  if (mesh.has_data()) return shape;
  int64_t others = 1;
  for (const int32_t size : {mesh.pipeline(), mesh.shard(), mesh.context(), mesh.tensor()}) {
    if (__builtin_mul_overflow(others, int64_t{size}, &others))
      return ConfigError("the mesh has more ranks than can be counted: lower its axes");
  }
  if (world_size % others != 0) {
    return ConfigError(absl::StrCat(
        "the mesh (pipeline: ", mesh.pipeline(), ", shard: ", mesh.shard(),
        ", context: ", mesh.context(), ", tensor: ", mesh.tensor(), ") needs a multiple of ",
        others, " ranks, but ", world_size, world_size == 1 ? " runs" : " run", ": start ",
        (world_size / others + 1) * others, " of them, or lower an axis"));
  }
  shape.sizes[static_cast<size_t>(Axis::kData)] = static_cast<int>(world_size / others);
  return shape;
}

PlaceOptions PlaceOptionsOf(const config::Train& config) {
  return {.zero = static_cast<ZeroLevel>(config.mesh().zero()),
          .chunks = config.mesh().interleave()};
}

StepOptions StepOptionsOf(const config::Train& config) {
  const config::Optimizer& o = config.optimizer();
  StepOptions options;
  options.walk.recompute = RecomputeOf(config.train().recompute());
  options.walk.activations =
      config.train().offload().activations() ? ActivationPlace::kCpu : ActivationPlace::kOnDevice;
  options.micro_batch = config.train().micro_batch();
  options.mlp_chunk_tokens = config.train().mlp_chunk_tokens();
  options.context_method = MethodOf(config.mesh().context_method());
  if (config.train().has_gradient_reduction() &&
      config.train().gradient_reduction() == config::BF16) {
    options.reduction = ReductionType::kBf16;
  }
  options.clip_norm = o.clip_norm();
  options.adamw = {
      o.betas(0), o.betas(1), o.eps(),
      config.train().offload().optimizer() ? StatePlace::kCpu : StatePlace::kWithParameters};
  return options;
}

at::ScalarType DtypeOf(config::Precision precision) {
  switch (precision) {
    case config::FP32: return at::kFloat;
    case config::BF16: return at::kBFloat16;
    case config::FP64: return at::kDouble;
  }
  return at::kFloat;
}

PlanOptions PlanOptionsOf(const config::Train& config) {
  const config::Data& data = config.data();
  PlanOptions options;
  options.sequence_length = data.sequence_length();
  options.seed = config.train().seed();
  options.packing = data.packing() ? Packing::kOn : Packing::kOff;
  options.order = data.shuffle() ? Order::kShuffled : Order::kFile;
  switch (data.long_records()) {
    case config::TRUNCATE: options.long_records = LongRecordPolicy::kTruncate; break;
    case config::SPLIT: options.long_records = LongRecordPolicy::kSplit; break;
    case config::DROP: options.long_records = LongRecordPolicy::kDrop; break;
  }
  return options;
}

EncoderOptions EncoderOptionsOf(const config::Train& config, int64_t vocab_size) {
  const config::Data& data = config.data();
  EncoderOptions options;
  options.vocab_size = vocab_size;
  switch (data.target()) {
    case config::ASSISTANT: options.target = Target::kAssistant; break;
    case config::LAST_TURN: options.target = Target::kLastTurn; break;
    case config::ALL: options.target = Target::kAll; break;
  }
  options.chat_template = {data.template_(), data.template_date()};
  return options;
}

}  // namespace osler
