#include "trainer/micro_batch.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <vector>

#include "parallel/communicator.h"

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

int64_t RowsFor(int64_t tokens, const MicroBatchLayout& layout) {
  const int64_t step = kRowMultiple * (layout.tensor == nullptr ? 1 : layout.tensor->size());
  return std::max<int64_t>(1, (tokens + step - 1) / step) * step;
}

// Rows after the mask's own that see nothing; lo and hi stay ascending.
MaskIntervals WithBlindRows(const MaskIntervals& mask, int64_t rows) {
  const int64_t length = mask.lo_T.size(0);
  const at::Tensor blind = at::full({rows - length}, length, at::kInt);
  return {at::cat({mask.lo_T, blind}), at::cat({mask.hi_T, blind})};
}

}  // namespace

int64_t CountTargets(const Pack& pack) {
  int64_t count = 0;
  ForEachTarget(pack, [&](size_t, int32_t) { ++count; });
  return count;
}

MicroBatch MakeMicroBatch(const Model& model, std::span<const Pack> packs,
                          const MicroBatchLayout& layout) {
  std::vector<int32_t> tokens, doc_starts;
  std::vector<int64_t> targets;
  MicroBatch batch;
  for (const Pack& pack : packs) {
    const size_t base = tokens.size();
    tokens.insert(tokens.end(), pack.tokens.begin(), pack.tokens.end());
    for (const int32_t start : pack.doc_starts)
      doc_starts.push_back(static_cast<int32_t>(base) + start);
    targets.resize(tokens.size(), kIgnore);
    ForEachTarget(pack, [&](size_t t, int32_t label) {
      targets[base + t - 1] = label;
      ++batch.target_tokens;
    });
  }
  batch.tokens = static_cast<int64_t>(tokens.size());
  std::vector<int64_t> positions = DocumentPositions(doc_starts, batch.tokens);
  std::vector<MaskIntervals> masks = model.DocumentMasks(doc_starts, batch.tokens);
  const int64_t rows = RowsFor(batch.tokens, layout);
  tokens.resize(static_cast<size_t>(rows), 0);
  positions.resize(static_cast<size_t>(rows), 0);
  targets.resize(static_cast<size_t>(rows), kIgnore);
  batch.inputs = model.PrepareRows(tokens, positions);
  for (const MaskIntervals& mask : masks) batch.inputs.masks.push_back(WithBlindRows(mask, rows));
  batch.inputs.tensor = layout.tensor;
  batch.inputs.mlp_chunk_tokens = layout.mlp_chunk_tokens;
  batch.targets_T = at::tensor(targets, at::kLong);
  return batch;
}

}  // namespace osler
