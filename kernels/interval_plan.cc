#include "kernels/interval_plan.h"

#include <algorithm>
#include <utility>

namespace osler {
namespace {

struct Intervals {
  explicit Intervals(const MaskIntervals& mask)
      : lo(mask.lo_T.const_data_ptr<int32_t>()),
        hi(mask.hi_T.const_data_ptr<int32_t>()),
        rows(mask.lo_T.size(0)) {}
  const int32_t* lo;
  const int32_t* hi;
  int64_t rows;
};

// Rows [row, row + rows) of which each shares keys with the one before.
struct Component {
  int64_t row, rows, key, keys;
};

std::vector<Component> Components(const Intervals& in) {
  std::vector<Component> components;
  for (int64_t row = 0, end = 0; row < in.rows; row = end) {
    end = row + 1;
    if (in.lo[row] == in.hi[row]) continue;
    while (end < in.rows && in.lo[end] < in.hi[end - 1]) ++end;
    components.push_back({row, end - row, in.lo[row], in.hi[end - 1] - in.lo[row]});
  }
  return components;
}

struct Costed {
  int64_t scores;  // (column, key) pairs that the mask lets through
  AttentionBlock block;
};

// The pairs of the block's rows whose keys lie in [begin, end).
int64_t Scores(const Intervals& in, const AttentionBlock& block, int64_t group, int64_t begin,
               int64_t end) {
  int64_t sum = 0;
  const int64_t last = (block.column + block.columns - 1) / group;
  for (int64_t row = block.column / group; row <= last; ++row) {
    sum += std::max<int64_t>(
        0, std::min<int64_t>(in.hi[row], end) - std::max<int64_t>(in.lo[row], begin));
  }
  return sum;
}

void AddForEachHead(const Costed& costed, int64_t key_heads, std::vector<Costed>& to) {
  to.push_back(costed);
  for (int64_t head = 1; head < key_heads; ++head) {
    to.push_back(costed);
    to.back().block.key_head = head;
  }
}

std::vector<AttentionBlock> CostliestFirst(std::vector<Costed> blocks) {
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Costed& a, const Costed& b) { return a.scores > b.scores; });
  std::vector<AttentionBlock> sorted;
  sorted.reserve(blocks.size());
  for (const Costed& costed : blocks) sorted.push_back(costed.block);
  return sorted;
}

// Calls body(block index, block) for a component's columns in blocks of at most `most`.
template <class Body>
void ForColumnBlocks(const Component& component, int64_t group, int64_t most, const Body& body) {
  const int64_t first = component.row * group, end = first + component.rows * group;
  for (int64_t column = first, i = 0; column < end; column += most, ++i) {
    body(i, AttentionBlock{0, column, std::min(most, end - column), component.key, component.keys});
  }
}

}  // namespace

void CheckIntervals(const MaskIntervals& mask, int64_t rows, int64_t keys) {
  for (const at::Tensor* end : {&mask.lo_T, &mask.hi_T}) {
    TORCH_CHECK(end->defined() && end->scalar_type() == at::kInt && end->dim() == 1 &&
                    end->size(0) == rows && end->is_contiguous() && end->device().is_cpu(),
                "mask intervals must be contiguous int32 CPU tensors with one entry a query row");
  }
  const Intervals in(mask);
  for (int64_t i = 0; i < rows; ++i) {
    TORCH_CHECK(0 <= in.lo[i] && in.lo[i] <= in.hi[i] && in.hi[i] <= keys, "mask row ", i, " is [",
                in.lo[i], ", ", in.hi[i], "), outside the ", keys, " keys");
    TORCH_CHECK(i == 0 || (in.lo[i - 1] <= in.lo[i] && in.hi[i - 1] <= in.hi[i]),
                "mask ends decrease at row ", i);
  }
}

std::vector<AttentionBlock> PlanForward(const MaskIntervals& mask, const AttentionHeads& heads) {
  const Intervals in(mask);
  std::vector<Costed> blocks;
  for (const Component& component : Components(in)) {
    ForColumnBlocks(
        component, heads.group, kForwardColumns, [&](int64_t, const AttentionBlock& block) {
          const int64_t scores = Scores(in, block, heads.group, block.key, block.key + block.keys);
          AddForEachHead({scores, block}, heads.key_heads, blocks);
        });
  }
  return CostliestFirst(std::move(blocks));
}

std::vector<std::vector<AttentionBlock>> PlanBackward(const MaskIntervals& mask,
                                                      const AttentionHeads& heads) {
  const Intervals in(mask);
  std::vector<std::vector<Costed>> waves;
  for (const Component& component : Components(in)) {
    const int64_t columns = component.rows * heads.group;
    const int64_t count = std::max((columns + kBackwardColumns - 1) / kBackwardColumns,
                                   (component.keys + kBackwardKeys - 1) / kBackwardKeys);
    const auto add = [&](int64_t i, AttentionBlock block) {
      for (int64_t j = 0; j * kBackwardKeys < component.keys; ++j) {
        block.key = component.key + j * kBackwardKeys;
        block.keys = std::min(kBackwardKeys, component.keys - j * kBackwardKeys);
        const int64_t scores = Scores(in, block, heads.group, block.key, block.key + block.keys);
        if (scores == 0) continue;
        // A Latin square: in one wave each i meets another j.
        const auto wave = static_cast<size_t>((i - j + count) % count);
        if (waves.size() <= wave) waves.resize(wave + 1);
        AddForEachHead({scores, block}, heads.key_heads, waves[wave]);
      }
    };
    ForColumnBlocks(component, heads.group, kBackwardColumns, add);
  }
  std::vector<std::vector<AttentionBlock>> plan;
  for (std::vector<Costed>& wave : waves) plan.push_back(CostliestFirst(std::move(wave)));
  return plan;
}

}  // namespace osler
