#include "trainer/plan/space.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/cpu_isa.h"
#include "kernels/interval_attention_tiles.h"
#include "kernels/linear_cross_entropy.h"
#include "model/layout.h"
#include "parallel/context_plan.h"
#include "parallel/context_split.h"
#include "trainer/sharded_state.h"
#include "trainer/stage_pass.h"

namespace osler {
namespace {

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
int64_t HeadBytes(const Model& model, int64_t vocabulary, const RowSizes& rows,
                  const PlanBatch& batch) {
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

// The store as rank 0 of the two axes that cut a parameter has it; the others have as much.
absl::StatusOr<ParameterStore> LaidOut(const PlanModel& model, const PlanLayout& layout) {
  ParameterStore store = model.store;
  MeshShape mesh;
  for (const Axis axis : {Axis::kShard, Axis::kTensor})
    mesh.sizes[static_cast<size_t>(axis)] = layout.mesh.size(axis);
  OSLER_RETURN_IF_ERROR(
      PlaceModel(model.spec, model.model, mesh, {}, {layout.place.zero, 1}, store).status());
  return store;
}

BlockSlots Gathered(const std::vector<int64_t>& slots, const SlotSizes& sizes) {
  BlockSlots block;
  for (const int64_t slot : slots) {
    block.flat += sizes.flat(slot);
    if (!sizes.trained[static_cast<size_t>(slot)]) continue;
    block.trained_flat += sizes.flat(slot);
    block.trained.push_back(slot);
  }
  return block;
}

// The slots that a stage writes: a tied embedding is written by the first that has it.
std::vector<int64_t> WrittenBy(size_t stage, const std::vector<std::vector<int64_t>>& slots) {
  std::vector<int64_t> written;
  for (const int64_t slot : slots[stage]) {
    const bool earlier =
        std::any_of(slots.begin(), slots.begin() + static_cast<int64_t>(stage),
                    [&](const auto& other) { return std::ranges::binary_search(other, slot); });
    if (!earlier) written.push_back(slot);
  }
  return written;
}

// The most that one of so many ranks, which share the writing of their pieces, copies.
int64_t MostWritten(const SlotSizes& slots, const std::vector<int64_t>& written,
                    const PlanBatch& batch, int64_t ranks) {
  std::vector<int64_t> bytes;
  const auto add = [&](int64_t slot, int64_t width) {
    bytes.push_back(slots.pieces[static_cast<size_t>(slot)] * width);
  };
  for (const int64_t slot : written) add(slot, batch.element_bytes());
  const int tensors = batch.dtype == at::kBFloat16 ? 3 : 2;
  for (const int64_t slot : written) {
    if (!slots.trained[static_cast<size_t>(slot)]) continue;
    for (int i = 0; i < tensors; ++i) add(slot, batch.sum_bytes());
  }
  const std::vector<int64_t> writers = DealWriters(bytes, ranks);
  std::vector<int64_t> load(static_cast<size_t>(ranks));
  for (size_t i = 0; i < bytes.size(); ++i) load[static_cast<size_t>(writers[i])] += bytes[i];
  return *std::max_element(load.begin(), load.end());
}

}  // namespace

absl::Status PlanSpace::Check(const PlanLayout& layout) const {
  return CheckLayout(model_.spec, layout.mesh, layout.place.chunks);
}

absl::StatusOr<const SlotSizes*> PlanSpace::Slots(const PlanLayout& layout) {
  const std::tuple key{layout.mesh.size(Axis::kTensor), layout.mesh.size(Axis::kShard),
                       static_cast<int>(layout.place.zero)};
  if (const auto found = slots_.find(key); found != slots_.end()) return &found->second;
  OSLER_ASSIGN_OR_RETURN(const ParameterStore store, LaidOut(model_, layout));
  SlotSizes sizes;
  for (size_t i = 0; i < store.slots().size(); ++i) {
    sizes.pieces.push_back(store.PieceCount(static_cast<int64_t>(i)));
    sizes.copies.push_back(store.slots()[i].slice.copies);
    sizes.trained.push_back(store.slots()[i].trainable);
  }
  sizes.shard = store.layout().shard_size;
  sizes.cuts_gradients = store.cuts_gradients();
  sizes.cuts_parameters = store.cuts_parameters();
  for (const auto& block : model_.model.blocks)
    sizes.blocks.push_back(Gathered(block->slots(), sizes));
  sizes.blocks.push_back(Gathered({model_.model.head_slot}, sizes));
  return &slots_.emplace(key, std::move(sizes)).first->second;
}

const StageSlots& PlanSpace::Stages(const PlanLayout& layout) {
  const int stages = layout.mesh.size(Axis::kPipeline);
  const auto [found, fresh] = stages_.try_emplace({stages, layout.place.chunks});
  if (!fresh) return found->second;
  StageSlots& made = found->second;
  made.plan = PlanStages(BlockCosts(model_.model, model_.store),
                         HeadCost(model_.model, model_.store), {stages, layout.place.chunks});
  for (int stage = 0; stage < stages; ++stage)
    made.slots.push_back(SlotsOfStage(model_.model, made.plan, stage));
  for (size_t stage = 0; stage < made.slots.size(); ++stage)
    made.written.push_back(WrittenBy(stage, made.slots));
  return made;
}

absl::StatusOr<const MicroBatchSizes*> PlanSpace::MicroBatch(const PlanLayout& layout) {
  const int tensor = layout.mesh.size(Axis::kTensor);
  const std::pair key{layout.mesh.size(Axis::kContext), tensor};
  if (const auto found = batches_.find(key); found != batches_.end()) return &found->second;
  OSLER_ASSIGN_OR_RETURN(const ParameterStore store, LaidOut(model_, layout));
  const RowSizes rows = RowSizesOf(model_.model, batch_, layout);
  MicroBatchSizes sizes;
  OSLER_ASSIGN_OR_RETURN(sizes.blocks, BlockMemories(model_.model, store, rows, tensor));
  sizes.input_bytes = InputBytes(model_.model, rows);
  sizes.head_bytes =
      HeadBytes(model_.model, store.LocalShape(model_.model.head_slot)[0], rows, batch_);
  return &batches_.emplace(key, std::move(sizes)).first->second;
}

absl::StatusOr<int64_t> PlanSpace::StagedBytes(const PlanLayout& layout, int stage) {
  const MeshShape& mesh = layout.mesh;
  const int ranks = mesh.size(Axis::kData) * mesh.size(Axis::kContext);
  const std::array key{mesh.size(Axis::kTensor),
                       mesh.size(Axis::kShard),
                       mesh.size(Axis::kPipeline),
                       layout.place.chunks,
                       ranks,
                       stage};
  if (const auto found = staged_.find(key); found != staged_.end()) return found->second;
  OSLER_ASSIGN_OR_RETURN(const SlotSizes* slots, Slots(layout));
  const std::vector<int64_t>& written = Stages(layout).written[static_cast<size_t>(stage)];
  return staged_[key] = MostWritten(*slots, written, batch_, ranks);
}

}  // namespace osler
