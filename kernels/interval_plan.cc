#include "kernels/interval_plan.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/device.h"

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

// Calls body(block index, block) for a component's columns in blocks of at most `most`.
template <class Body>
void ForColumnBlocks(const Component& component, int64_t group, int64_t most, const Body& body) {
  const int64_t first = component.row * group, end = first + component.rows * group;
  for (int64_t column = first, i = 0; column < end; column += most, ++i) {
    body(i, AttentionBlock{0, column, std::min(most, end - column), component.key, component.keys});
  }
}

// A backward step with the number of its columns and of its keys among all.
struct Placed {
  AttentionStep step;
  int64_t slots[2];
  int64_t wave;  // of a Latin square: in one wave no two steps share columns or keys
};

std::vector<AttentionStep> Chained(std::vector<Placed> placed, int64_t slots) {
  std::stable_sort(placed.begin(), placed.end(),
                   [](const Placed& a, const Placed& b) { return a.wave < b.wave; });
  std::vector<AttentionStep> steps;
  std::vector<int32_t> last[2];
  for (std::vector<int32_t>& each : last) each.assign(static_cast<size_t>(slots), -1);
  for (const Placed& each : placed) {
    const auto index = static_cast<int32_t>(steps.size());
    steps.push_back(each.step);
    for (int side = 0; side < 2; ++side) {
      int32_t& before = last[side][static_cast<size_t>(each.slots[side])];
      if (before >= 0) {
        steps[static_cast<size_t>(before)].next[side] = index;
        ++steps.back().waits;
      }
      before = index;
    }
  }
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    int64_t after = 0;
    for (const int32_t next : step->next) {
      if (next >= 0) after = std::max(after, steps[static_cast<size_t>(next)].path);
    }
    step->path += after;
  }
  return steps;
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

MaskIntervals MaskOn(at::Device device, const MaskIntervals& mask, int64_t keys) {
  if (device.is_cpu()) return mask;
  CheckIntervals(mask, mask.lo_T.size(0), keys);
  return {ToDevice(mask.lo_T, device), ToDevice(mask.hi_T, device)};
}

std::vector<AttentionStep> PlanForward(const MaskIntervals& mask, const AttentionHeads& heads) {
  const Intervals in(mask);
  std::vector<AttentionStep> steps;
  for (const Component& component : Components(in)) {
    ForColumnBlocks(component, heads.group, kForwardColumns, [&](int64_t, AttentionBlock block) {
      const int64_t scores = Scores(in, block, heads.group, block.key, block.key + block.keys);
      for (block.key_head = 0; block.key_head < heads.key_heads; ++block.key_head) {
        steps.push_back({block, scores, scores, 0, {-1, -1}});
      }
    });
  }
  return steps;
}

std::vector<AttentionStep> PlanBackward(const MaskIntervals& mask, const AttentionHeads& heads,
                                        int64_t width) {
  const Intervals in(mask);
  const int64_t most_keys = kBackwardKeyValues / width;
  std::vector<Placed> placed;
  int64_t slots = 0;
  for (const Component& component : Components(in)) {
    const int64_t columns = component.rows * heads.group;
    const int64_t count = std::max((columns + kBackwardColumns - 1) / kBackwardColumns,
                                   (component.keys + most_keys - 1) / most_keys);
    ForColumnBlocks(component, heads.group, kBackwardColumns, [&](int64_t i, AttentionBlock block) {
      for (int64_t j = 0; j * most_keys < component.keys; ++j) {
        block.key = component.key + j * most_keys;
        block.keys = std::min(most_keys, component.keys - j * most_keys);
        const int64_t scores = Scores(in, block, heads.group, block.key, block.key + block.keys);
        if (scores == 0) continue;
        for (block.key_head = 0; block.key_head < heads.key_heads; ++block.key_head) {
          const int64_t base = slots + block.key_head * count;
          placed.push_back({{block, scores, scores, 0, {-1, -1}},
                            {base + i, base + j},
                            (i - j + count) % count});
        }
      }
    });
    slots += count * heads.key_heads;
  }
  return Chained(std::move(placed), slots);
}

}  // namespace osler
