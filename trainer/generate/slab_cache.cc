#include "trainer/generate/slab_cache.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

namespace osler {
namespace {

constexpr int64_t kLeastCapacity = 64;

template <typename T>
at::Tensor ToTensor(std::vector<T>& values, at::ScalarType dtype) {
  return at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, dtype).clone();
}

// Masks point to the cache's rows, or the pass's own, by 32-bit numbers.
int32_t Narrow(int64_t row) {
  TORCH_CHECK(row <= std::numeric_limits<int32_t>::max(),
              "the cache would hold more than 2^31 tokens; lower the batch");
  return static_cast<int32_t>(row);
}

// Grows towards MaskIntervals.
struct Intervals {
  std::vector<int32_t> lo, hi;
  void Add(int64_t from, int64_t to) {
    lo.push_back(Narrow(from));
    hi.push_back(Narrow(to));
  }
  MaskIntervals Take() { return {ToTensor(lo, at::kInt), ToTensor(hi, at::kInt)}; }
};

struct Positions {
  std::vector<int64_t> tokens, positions;
  SequenceInputs Inputs(const Model& model) {
    SequenceInputs inputs;
    inputs.tokens_T = ToTensor(tokens, at::kLong);
    inputs.positions_T = ToTensor(positions, at::kLong);
    for (const Model::LayerKind& kind : model.layer_kinds)
      inputs.ropes.push_back(MakeRopeTables(inputs.positions_T, model.head_dim, kind.rope));
    return inputs;
  }
};

at::Tensor Grown(const at::Tensor& slab, int64_t slots, int64_t entries) {
  const at::Tensor old = slab.view({slots, -1, slab.size(1), slab.size(2)});
  const at::Tensor fresh = at::zeros({slots, entries, slab.size(1), slab.size(2)}, slab.options());
  fresh.narrow(1, 0, old.size(1)).copy_(old);
  return fresh.view({slots * entries, slab.size(1), slab.size(2)});
}

}  // namespace

int64_t SlabCache::Window(size_t kind) const {
  return model_.layer_kinds[kind].window.value_or(std::numeric_limits<int64_t>::max());
}

int64_t SlabCache::Entries(size_t kind) const { return std::min(Window(kind), capacity_); }

int64_t SlabCache::Place(size_t kind, int64_t slot, int64_t position) const {
  return slot * Entries(kind) + position % Window(kind);
}

void SlabCache::Reserve(int64_t tokens) {
  if (tokens <= capacity_) return;
  capacity_ = std::max({tokens, 2 * capacity_, kLeastCapacity});
  Narrow(slots_ * capacity_);
  for (Layer& layer : layers_) {
    if (!layer.slab.k_SHD.defined()) continue;
    layer.slab.k_SHD = Grown(layer.slab.k_SHD, slots_, Entries(layer.kind));
    layer.slab.v_SHD = Grown(layer.slab.v_SHD, slots_, Entries(layer.kind));
  }
}

SlabCache::KindPass SlabCache::PlanPrefill(size_t kind, std::span<const Segment> segments) const {
  std::vector<int64_t> history, source, target;
  int64_t first_row = 0;
  for (const Segment& segment : segments) {
    const auto count = static_cast<int64_t>(segment.tokens.size());
    for (int64_t p = segment.start - std::min(segment.start, Window(kind) - 1); p < segment.start;
         ++p) {
      history.push_back(Place(kind, segment.slots[0], p));
    }
    for (const int64_t slot : segment.slots) {
      for (int64_t i = count - std::min(count, Window(kind)); i < count; ++i) {
        source.push_back(first_row + i);
        target.push_back(Place(kind, slot, segment.start + i));
      }
    }
    first_row += count;
  }
  KindPass pass;
  if (!history.empty()) pass.history_N = ToTensor(history, at::kLong);
  pass.source_N = ToTensor(source, at::kLong);
  pass.target_N = ToTensor(target, at::kLong);
  return pass;
}

// A segment's keys are those of its history, then its own.
MaskIntervals SlabCache::PrefillMask(size_t kind, std::span<const Segment> segments) const {
  Intervals intervals;
  int64_t first_key = 0;
  for (const Segment& segment : segments) {
    const int64_t history = std::min(segment.start, Window(kind) - 1);
    const auto count = static_cast<int64_t>(segment.tokens.size());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t seen = std::min(history + i + 1, Window(kind));
      const int64_t end = first_key + history + i + 1;
      intervals.Add(end - seen, end);
    }
    first_key += history + count;
  }
  return intervals.Take();
}

SequenceInputs SlabCache::Prefill(std::span<const Segment> segments) {
  Positions all;
  int64_t longest = 0;
  for (const Segment& segment : segments) {
    TORCH_CHECK(segment.start == 0 || segments.size() == 1,
                "a prompt that goes on needs a pass of its own");
    const auto count = static_cast<int64_t>(segment.tokens.size());
    longest = std::max(longest, segment.start + count);
    all.tokens.insert(all.tokens.end(), segment.tokens.begin(), segment.tokens.end());
    for (int64_t i = 0; i < count; ++i) all.positions.push_back(segment.start + i);
  }
  Reserve(longest);
  SequenceInputs inputs = all.Inputs(model_);
  passes_.clear();
  for (size_t kind = 0; kind < model_.layer_kinds.size(); ++kind) {
    passes_.push_back(PlanPrefill(kind, segments));
    inputs.masks.push_back(PrefillMask(kind, segments));
  }
  attend_to_slab_ = false;
  inputs.cache = this;
  return inputs;
}

MaskIntervals SlabCache::DecodeMask(size_t kind, std::span<const Row> rows) const {
  Intervals intervals;
  for (const Row& row : rows) {
    const int64_t first = row.slot * Entries(kind);
    intervals.Add(first, first + std::min(row.position + 1, Window(kind)));
  }
  return intervals.Take();
}

SequenceInputs SlabCache::Decode(std::span<const Row> rows) {
  Positions all;
  int64_t longest = 0;
  for (const Row& row : rows) {
    longest = std::max(longest, row.position + 1);
    all.tokens.push_back(row.token);
    all.positions.push_back(row.position);
  }
  Reserve(longest);
  SequenceInputs inputs = all.Inputs(model_);
  passes_.clear();
  for (size_t kind = 0; kind < model_.layer_kinds.size(); ++kind) {
    std::vector<int64_t> target;
    for (const Row& row : rows) target.push_back(Place(kind, row.slot, row.position));
    passes_.emplace_back().target_N = ToTensor(target, at::kLong);
    inputs.masks.push_back(DecodeMask(kind, rows));
  }
  attend_to_slab_ = true;
  inputs.cache = this;
  return inputs;
}

KeysValues SlabCache::Extend(int64_t layer_index, size_t kind, const KeysValues& added) {
  const auto index = static_cast<size_t>(layer_index);
  if (index >= layers_.size()) layers_.resize(index + 1);
  Layer& layer = layers_[index];
  const KindPass& pass = passes_[kind];
  layer.kind = kind;
  const auto extend = [&](at::Tensor& slab, const at::Tensor& fresh) {
    if (!slab.defined()) {
      slab = at::zeros({slots_ * Entries(kind), fresh.size(1), fresh.size(2)}, fresh.options());
    }
    at::Tensor seen = fresh;
    if (pass.history_N.defined())
      seen = at::cat({at::index_select(slab, 0, pass.history_N), fresh});
    slab.index_copy_(0, pass.target_N,
                     pass.source_N.defined() ? at::index_select(fresh, 0, pass.source_N) : fresh);
    return attend_to_slab_ ? slab : seen;
  };
  return {extend(layer.slab.k_SHD, added.k_SHD), extend(layer.slab.v_SHD, added.v_SHD)};
}

}  // namespace osler
