#include "trainer/micro_batch.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/interval_plan.h"
#include "parallel/communicator.h"
#include "parallel/context_plan.h"
#include "parallel/context_split.h"

namespace osler {
namespace {

constexpr int64_t kRowMultiple = 64;

// Calls visit(position in the pack, label) for every loss target: documents' first tokens follow
// nothing.
template <typename Visit>
void ForEachTarget(const Pack& pack, Visit visit) {
  size_t next_doc = 0;
  for (size_t t = 0; t < pack.labels.size(); ++t) {
    if (next_doc < pack.doc_starts.size() && static_cast<size_t>(pack.doc_starts[next_doc]) == t) {
      ++next_doc;
      continue;
    }
    if (pack.labels[t] != kIgnore) visit(t, pack.labels[t]);
  }
}

// The packs one behind the other.
struct PackedRun {
  std::vector<int32_t> tokens, doc_starts;
  std::vector<int64_t> positions, targets;
  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
};

PackedRun Join(std::span<const Pack> packs) {
  PackedRun run;
  for (const Pack& pack : packs) {
    const size_t base = run.tokens.size();
    run.tokens.insert(run.tokens.end(), pack.tokens.begin(), pack.tokens.end());
    for (const int32_t start : pack.doc_starts)
      run.doc_starts.push_back(static_cast<int32_t>(base) + start);
    run.targets.resize(run.tokens.size(), kIgnore);
    ForEachTarget(pack, [&](size_t t, int32_t label) { run.targets[base + t - 1] = label; });
  }
  run.positions = DocumentPositions(run.doc_starts, run.length());
  return run;
}

// The values of a rank's tokens, then `fill`.
template <typename T>
std::vector<T> RowsOf(const std::vector<T>& values, const TokenRanges& ranges, int64_t rows,
                      T fill) {
  std::vector<T> result;
  result.reserve(static_cast<size_t>(rows));
  for (const TokenRange& range : ranges)
    result.insert(result.end(), values.begin() + range.begin, values.begin() + range.end);
  result.resize(static_cast<size_t>(rows), fill);
  return result;
}

ContextSplit SplitRun(const Model& model, const std::vector<MaskIntervals>& masks,
                      const PackedRun& run, int ranks) {
  std::vector<MaskedLayers> kinds;
  for (size_t k = 0; k < masks.size(); ++k)
    kinds.push_back({masks[k], model.layer_kinds[k].layers});
  std::vector<int64_t> costs = TokenCosts(kinds, run.length(), model.token_cost);
  for (size_t t = 0; t < costs.size(); ++t)
    costs[t] += run.targets[t] == kIgnore ? 0 : model.head_cost;
  return SplitContext(costs, ranks);
}

}  // namespace

int64_t RowsFor(int64_t tokens, int tensor_ranks) {
  const int64_t step = kRowMultiple * tensor_ranks;
  return std::max<int64_t>(1, (tokens + step - 1) / step) * step;
}

int64_t CountTargets(const Pack& pack) {
  int64_t count = 0;
  ForEachTarget(pack, [&](size_t, int32_t) { ++count; });
  return count;
}

MicroBatch MakeMicroBatch(const Model& model, std::span<const Pack> packs,
                          const MicroBatchLayout& layout) {
  const PackedRun run = Join(packs);
  const std::vector<MaskIntervals> masks = model.DocumentMasks(run.doc_starts, run.length());
  const int ranks = layout.context == nullptr ? 1 : layout.context->size();
  const ContextSplit split = SplitRun(model, masks, run, ranks);
  const TokenRanges& own =
      split.ranges[ranks == 1 ? 0 : static_cast<size_t>(layout.context->rank())];
  const int64_t rows =
      RowsFor(TokenCount(own), layout.tensor == nullptr ? 1 : layout.tensor->size());

  MicroBatch batch;
  batch.inputs = model.PrepareRows(RowsOf(run.tokens, own, rows, int32_t{0}),
                                   RowsOf(run.positions, own, rows, int64_t{0}), layout.device);
  batch.inputs.tensor = layout.tensor;
  batch.inputs.mlp_chunk_tokens = layout.mlp_chunk_tokens;
  if (ranks == 1) {
    for (const MaskIntervals& mask : masks) {
      batch.inputs.masks.push_back(
          MaskOn(layout.device, RowsOverKeys(mask, own, rows, own), TokenCount(own)));
    }
  } else {
    std::vector<ContextAttention::Kind> kinds;
    for (size_t k = 0; k < masks.size(); ++k)
      kinds.push_back({masks[k], model.layer_kinds[k].window});
    batch.inputs.context = std::make_shared<ContextAttention>(*layout.context, split, kinds, rows,
                                                              layout.context_method, layout.device);
  }
  const std::vector<int64_t> targets = RowsOf(run.targets, own, rows, int64_t{kIgnore});
  batch.targets_T = at::tensor(targets, at::kLong);
  batch.tokens = TokenCount(own);
  batch.target_tokens = static_cast<int64_t>(targets.size()) -
                        std::count(targets.begin(), targets.end(), int64_t{kIgnore});
  return batch;
}

}  // namespace osler
