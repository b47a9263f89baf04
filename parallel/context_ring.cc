#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/interval_attention_dispatch.h"
#include "kernels/interval_plan.h"
#include "kernels/merge_attention.h"
#include "parallel/context_keys.h"
#include "parallel/context_plan.h"

namespace osler {
namespace {

// The rows of this rank that see some of one rank's keys, and their mask over those.
struct Part {
  int64_t first = 0, rows = 0;
  MaskIntervals mask;
  int64_t keys = 0;  // all that the rank has

  at::Tensor Of(const at::Tensor& x) const { return x.narrow(0, first, rows); }
};

Part MakePart(const MaskIntervals& mask, const TokenRanges& rows, const TokenRanges& keys) {
  const int64_t count = TokenCount(rows);
  const MaskIntervals all = RowsOverKeys(mask, rows, count, keys);
  const auto* lo = all.lo_T.const_data_ptr<int32_t>();
  const auto* hi = all.hi_T.const_data_ptr<int32_t>();
  int64_t first = 0, end = count;
  while (first < end && lo[first] == hi[first]) ++first;
  while (first < end && lo[end - 1] == hi[end - 1]) --end;
  return {first,
          end - first,
          {all.lo_T.narrow(0, first, end - first), all.hi_T.narrow(0, first, end - first)},
          TokenCount(keys)};
}

// A tensor on its way from the rank before to this one while another goes on to the rank after.
class Transfer {
 public:
  Transfer(Communicator& comm, const at::Tensor& out, const at::Tensor& in, std::string_view what)
      : in_(in),
        receive_(comm.Receive(in, (comm.rank() + comm.size() - 1) % comm.size(), what)),
        send_(comm.Send(out, (comm.rank() + 1) % comm.size(), what)) {}
  at::Tensor Wait() {
    receive_.Wait();
    send_.Wait();
    return in_;
  }

 private:
  at::Tensor in_;
  Handle receive_, send_;
};

class KeyRing final : public ContextKeys {
 public:
  KeyRing(Communicator& comm, const ContextSplit& split, const MaskIntervals& mask, int64_t rows,
          at::Device device)
      : comm_(comm), rows_(rows) {
    const TokenRanges& own = split.ranges[static_cast<size_t>(comm.rank())];
    for (const TokenRanges& keys : split.ranges) {
      parts_.push_back(MakePart(mask, own, keys));
      parts_.back().mask = MaskOn(device, parts_.back().mask, parts_.back().keys);
    }
  }

  AttentionOutput Forward(const LocalHeads& x, const AttentionOptions& options) const override {
    const at::TensorOptions sums = SumOptions(x.q_THD);
    const AttentionOutput total{.out_THD = at::zeros(x.q_THD.sizes(), sums),
                                .lse_TH = at::full({rows_, x.q_THD.size(1)},
                                                   -std::numeric_limits<double>::infinity(), sums)};
    ForEachRanksKeys(x, [&](int, const Part& part, const at::Tensor& keys) {
      if (part.rows == 0) return;
      MergeAttention(IntervalAttentionPart(Input(x, part, keys, options)), OutputOf(total, part));
    });
    return {.out_THD = total.out_THD.to(x.q_THD.scalar_type()), .lse_TH = total.lse_TH};
  }

  IntervalAttentionGradients Backward(const at::Tensor& grad_out_THD, const LocalHeads& x,
                                      const AttentionOutput& output,
                                      const AttentionOptions& options) const override {
    const at::TensorOptions sums = SumOptions(x.q_THD);
    const at::Tensor grad_q = at::zeros(x.q_THD.sizes(), sums);
    at::Tensor home;  // gradients of this rank's own keys and values, [2, keys, K, D]
    std::optional<Transfer> homeward;
    ForEachRanksKeys(x, [&](int step, const Part& part, const at::Tensor& keys) {
      const at::Tensor mine = at::zeros(keys.sizes(), sums);
      if (part.rows > 0) {
        const IntervalAttentionGradients gradients =
            IntervalAttentionGradientSums({.out_THD = part.Of(grad_out_THD), .lse_TH = {}},
                                          Input(x, part, keys, options), OutputOf(output, part));
        part.Of(grad_q).add_(gradients.q_THD);
        mine[0].copy_(gradients.k_SHD);
        mine[1].copy_(gradients.v_SHD);
      }
      if (homeward) mine.add_(homeward->Wait());
      if (step == 0) {
        home = mine;
      } else {
        homeward.emplace(comm_, mine, at::empty(KeyShape(x, step + 1), sums),
                         "context.ring.key_gradients");
      }
    });
    if (homeward) home.add_(homeward->Wait());
    const at::ScalarType dtype = x.q_THD.scalar_type();
    return {grad_q.to(dtype), WithBlindRows(home[0], dtype), WithBlindRows(home[1], dtype)};
  }

 private:
  static at::TensorOptions SumOptions(const at::Tensor& x) {
    return x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  }
  static IntervalAttentionInput Input(const LocalHeads& x, const Part& part, const at::Tensor& keys,
                                      const AttentionOptions& options) {
    return {part.Of(x.q_THD), keys[0], keys[1], part.mask, options};
  }
  static AttentionOutput OutputOf(const AttentionOutput& all, const Part& part) {
    return {.out_THD = part.Of(all.out_THD), .lse_TH = part.Of(all.lse_TH)};
  }

  // The part of the keys that arrive after `step` transfers.
  const Part& PartAt(int step) const {
    const int size = comm_.size();
    return parts_[static_cast<size_t>((comm_.rank() + size - step % size) % size)];
  }
  std::vector<int64_t> KeyShape(const LocalHeads& x, int step) const {
    return {2, PartAt(step).keys, x.k_TKD.size(1), x.k_TKD.size(2)};
  }

  // Calls body(step, part, keys and values [2, keys, K, D]) for this rank's own keys, then for
  // those of the rank before it, and so on. A pair's transfers are started in one order on both
  // sides.
  template <class Body>
  void ForEachRanksKeys(const LocalHeads& x, Body body) const {
    const int64_t own = PartAt(0).keys;
    at::Tensor keys = at::stack({x.k_TKD.narrow(0, 0, own), x.v_TKD.narrow(0, 0, own)});
    for (int step = 0; step < comm_.size(); ++step) {
      std::optional<Transfer> next;
      if (step + 1 < comm_.size()) {
        next.emplace(comm_, keys, at::empty(KeyShape(x, step + 1), keys.options()),
                     "context.ring.keys");
      }
      body(step, PartAt(step), keys);
      if (next) keys = next->Wait();
    }
  }

  // Rows without a key have no gradient.
  at::Tensor WithBlindRows(const at::Tensor& grad_SKD, at::ScalarType dtype) const {
    at::Tensor all =
        at::zeros({rows_, grad_SKD.size(1), grad_SKD.size(2)}, grad_SKD.options().dtype(dtype));
    all.narrow(0, 0, grad_SKD.size(0)).copy_(grad_SKD);
    return all;
  }

  Communicator& comm_;
  int64_t rows_;
  std::vector<Part> parts_;  // by the rank that owns the keys
};

}  // namespace

std::unique_ptr<ContextKeys> MakeKeyRing(Communicator& comm, const ContextSplit& split,
                                         const MaskIntervals& mask, int64_t rows,
                                         at::Device device) {
  return std::make_unique<KeyRing>(comm, split, mask, rows, device);
}

}  // namespace osler
