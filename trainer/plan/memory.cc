#include "trainer/plan/memory.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/status_macros.h"
#include "base/torch_status.h"
#include "kernels/cpu_isa.h"
#include "kernels/interval_attention_tiles.h"
#include "kernels/linear_cross_entropy.h"
#include "parallel/context_plan.h"
#include "parallel/context_split.h"
#include "trainer/parameter_groups.h"
#include "trainer/plan/walk_memory.h"
#include "trainer/run_layout.h"
#include "trainer/stage_pass.h"

namespace osler {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

AttentionType TypeOf(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble: return AttentionType::kFp64;
    case at::kFloat: return AttentionType::kFp32;
    default: return AttentionType::kBf16;
  }
}

// A micro-batch's documents, one a pack: what needs the most keys.
std::vector<int32_t> DocumentStarts(const PlanBatch& batch) {
  std::vector<int32_t> starts;
  for (int64_t p = 0; p < batch.step.micro_batch; ++p)
    starts.push_back(static_cast<int32_t>(p * batch.sequence_length));
  return starts;
}

// The rank of the context axis with the most of each.
void CountContext(const Model& model, const PlanBatch& batch, const PlanLayout& layout,
                  RowSizes& rows) {
  const int64_t tokens = batch.step.micro_batch * batch.sequence_length;
  const int ranks = layout.mesh.size(Axis::kContext);
  const std::vector<MaskIntervals> masks = model.DocumentMasks(DocumentStarts(batch), tokens);
  std::vector<MaskedLayers> kinds;
  for (size_t k = 0; k < masks.size(); ++k)
    kinds.push_back({masks[k], model.layer_kinds[k].layers});
  std::vector<int64_t> costs = TokenCosts(kinds, tokens, model.token_cost + model.head_cost);
  const ContextSplit split = SplitContext(costs, ranks);
  int64_t own = 0;
  for (const TokenRanges& ranges : split.ranges) own = std::max(own, TokenCount(ranges));
  for (size_t k = 0; k < masks.size(); ++k) {
    int64_t seen = 0, sent = 0;
    for (int r = 0; r < ranks; ++r) {
      const KeyExchange exchange = PlanKeyExchange(masks[k], split, r);
      seen = std::max(seen, exchange.keys);
      int64_t sends = 0;
      for (const TokenRanges& to : exchange.send) sends += TokenCount(to);
      sent = std::max(sent, sends);
    }
    const ContextMethod method = batch.step.context_method;
    if (!model.layer_kinds[k].window.has_value() &&
        (method == ContextMethod::kRing ||
         (method == ContextMethod::kAuto && seen > kMostGatheredKeys))) {
      rows.ring = true;
      seen = own;
      sent = 0;
    }
    rows.seen_keys = std::max(rows.seen_keys, seen);
    rows.sent_keys = std::max(rows.sent_keys, sent);
  }
  rows.rows = own;
}

RowSizes RowSizesOf(const Model& model, const PlanBatch& batch, const PlanLayout& layout) {
  const int tensor = layout.mesh.size(Axis::kTensor);
  RowSizes rows{.element = batch.element_bytes(),
                .sum = batch.sum_bytes(),
                .tensor = tensor > 1,
                .mlp_chunk = batch.step.mlp_chunk_tokens};
  const AttentionKernels& kernels = GetAttentionKernels(BestCpuIsa(), TypeOf(batch.dtype));
  rows.forward_scratch = kernels.forward_scratch_bytes(model.head_dim);
  rows.backward_scratch = kernels.backward_scratch_bytes(model.head_dim);
  rows.rows = batch.step.micro_batch * batch.sequence_length;
  if (layout.mesh.size(Axis::kContext) > 1) CountContext(model, batch, layout, rows);
  rows.rows = RowsFor(rows.rows, tensor);
  rows.own_rows = rows.rows / tensor;
  return rows;
}

// Ids, positions and targets; the ends of each mask's intervals; each table's sines and cosines.
int64_t InputBytes(const Model& model, const RowSizes& rows) {
  const auto kinds = static_cast<int64_t>(model.layer_kinds.size());
  return rows.rows * (3 * 8 + kinds * (2 * 4 + 2 * 4 * model.head_dim));
}

// A chunk's rows, logits and gradient, with every row a target; on a tensor axis the next chunk's
// rows, too. Then the gradient of all rows.
int64_t HeadBytes(const Model& model, const ParameterStore& store, const RowSizes& rows,
                  const PlanBatch& batch) {
  const int64_t vocabulary = store.LocalShape(model.head_slot)[0];
  const int64_t chunk = ChunkRows(rows.rows, at::empty({vocabulary, 0}, batch.dtype),
                                  {.chunk_tokens = kLossChunkTokens});
  const int64_t row = model.hidden_size * rows.element;
  const int64_t copies = rows.tensor ? 3 : 2;
  return chunk * (vocabulary * rows.element + copies * row) + rows.own_rows * row;
}

absl::StatusOr<std::vector<BlockMemory>> BlockMemories(const Model& model,
                                                       const ParameterStore& store,
                                                       const RowSizes& rows, int tensor) {
  std::vector<BlockMemory> memories;
  for (const auto& block : model.blocks) {
    if (memories.empty()) {
      memories.push_back(EmbeddingMemory(model.hidden_size, rows, tensor));
    } else if (IsLayer(*block)) {
      OSLER_ASSIGN_OR_RETURN(const LayerShape shape, LayerShapeOf(*block, store, model.head_dim));
      memories.push_back(LayerMemory(shape, rows));
    } else {
      memories.push_back(NormMemory(model.hidden_size, rows));
    }
  }
  return memories;
}

// What a rank has from the first step to the last.
void AddState(const ParameterStore& store, const PlanBatch& batch, Ledger& ledger) {
  const bool cuts = store.cuts_parameters();
  const bool copies = batch.dtype == at::kBFloat16 || batch.step.adamw.state == StatePlace::kCpu;
  for (size_t i = 0; i < store.slots().size(); ++i) {
    const auto slot = static_cast<int64_t>(i);
    if (!store.slot(slot).present) continue;
    const int64_t piece = store.PieceCount(slot), flat = piece * store.layout().shard_size;
    ledger.Add(Use::kParameters, (cuts ? piece : flat) * batch.element_bytes());
    if (!store.slot(slot).trainable) continue;
    ledger.Add(Use::kGradients, (store.cuts_gradients() ? piece : flat) * batch.sum_bytes());
    ledger.Add(Use::kOptimizer, piece * batch.sum_bytes() * (copies ? 3 : 2));
  }
}

// After the walk: the norm of each gradient is taken in fp64; a checkpoint's tensors are put
// together one by one on the first rank.
void AddAfterStep(const ParameterStore& store, const PlanBatch& batch, const PlanLayout& layout,
                  int stage, Ledger& ledger) {
  int64_t piece = 0, whole = 0;
  for (size_t i = 0; i < store.slots().size(); ++i) {
    const ParameterSlot& slot = store.slots()[i];
    int64_t count = 1;
    for (const int64_t size : slot.shape) count *= size;
    whole = std::max(whole, count);
    if (slot.present && slot.trainable)
      piece = std::max(piece, store.PieceCount(static_cast<int64_t>(i)));
  }
  ledger.SetPlace("gradient norm");
  if (batch.sum_bytes() < 8) ledger.Pass(Use::kReduction, piece * 8);
  const int parts = layout.mesh.size(Axis::kPipeline) * layout.mesh.size(Axis::kShard) *
                    layout.mesh.size(Axis::kTensor);
  if (parts == 1 || stage > 0) return;
  ledger.SetPlace("checkpoint");
  ledger.Pass(Use::kMessages, whole * batch.sum_bytes() * 3 / 2);
}

}  // namespace

absl::StatusOr<PlanModel> MakePlanModel(const config::Train& config, ModelSpec spec) {
  PlanModel planned{.spec = std::move(spec), .store = {}, .model = {}};
  planned.model = planned.spec.build(planned.store);
  OSLER_RETURN_IF_ERROR(GroupParameters(config, planned.store).status());
  return planned;
}

int PlanLayout::ranks() const {
  return std::accumulate(mesh.sizes.begin(), mesh.sizes.end(), 1, std::multiplies<>());
}

PlanLayout PlanLayoutOf(const config::Train& config, const MeshShape& mesh) {
  return {mesh, PlaceOptionsOf(config), StepOptionsOf(config).walk.recompute};
}

int64_t PlanBatch::passes(int64_t readers) const {
  return CeilDiv(CeilDiv(global_batch, readers), step.micro_batch);
}

PlanBatch PlanBatchOf(const config::Train& config) {
  return {.dtype = DtypeOf(config.train().precision()),
          .sequence_length = config.data().sequence_length(),
          .global_batch = config.train().global_batch(),
          .step = StepOptionsOf(config)};
}

absl::StatusOr<std::vector<RankMemory>> PredictMemory(const PlanModel& model,
                                                      const PlanBatch& batch,
                                                      const PlanLayout& layout) {
  std::vector<RankMemory> ranks;
  for (int stage = 0; stage < layout.mesh.size(Axis::kPipeline); ++stage) {
    ParameterStore store = model.store;
    OSLER_ASSIGN_OR_RETURN(
        const StagePlan stages,
        PlaceModel(model.spec, model.model, layout.mesh, {.pipeline = stage}, layout.place, store));
    const RowSizes rows = RowSizesOf(model.model, batch, layout);
    OSLER_ASSIGN_OR_RETURN(
        const std::vector<BlockMemory> blocks,
        BlockMemories(model.model, store, rows, layout.mesh.size(Axis::kTensor)));
    RankMemory rank;
    rank.stage = stage;
    rank.in_flight = std::min(batch.passes(layout.readers()), MaxInFlight(stages.shape, stage));
    // More micro-batches than these only repeat what they do.
    const int64_t enough = MaxInFlight(stages.shape, 0) + stages.shape.stages;
    const WalkMemoryParts parts{.model = model.model,
                                .store = store,
                                .stages = stages,
                                .blocks = blocks,
                                .layout = layout,
                                .batch = batch,
                                .input_bytes = InputBytes(model.model, rows),
                                .head_bytes = HeadBytes(model.model, store, rows, batch),
                                .micro_batches = std::min(batch.passes(layout.readers()), enough)};
    Ledger ledger;
    AddState(store, batch, ledger);
    if (layout.ranks() > 1) ledger.Add(Use::kMessages, kCollectiveScratch);
    WalkMemory walk(parts, stage, ledger);
    walk.Run();
    AddAfterStep(store, batch, layout, stage, ledger);
    rank.peak = ledger.peak();
    rank.most = ledger.most();
    rank.place = ledger.peak_place();
    rank.kept = walk.kept();
    ranks.push_back(std::move(rank));
  }
  return ranks;
}

const RankMemory& WorstRank(const std::vector<RankMemory>& ranks) {
  return *std::max_element(ranks.begin(), ranks.end(),
                           [](const auto& a, const auto& b) { return a.tensors() < b.tensors(); });
}

}  // namespace osler
