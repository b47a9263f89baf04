#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "kernels/interval_attention_dispatch.h"
#include "kernels/interval_plan.h"
#include "parallel/context_keys.h"
#include "parallel/context_plan.h"

namespace osler {
namespace {

// The rows of two tensors [·, K, D] at these places, one behind the other: [2, rows, K, D].
at::Tensor PackRows(const at::Tensor& a, const at::Tensor& b, const TokenRanges& places) {
  std::vector<at::Tensor> pieces;
  for (const at::Tensor* x : {&a, &b}) {
    for (const TokenRange& range : places)
      pieces.push_back(x->narrow(0, range.begin, range.size()));
  }
  if (pieces.empty()) return at::empty({2, 0, a.size(1), a.size(2)}, a.options());
  return at::cat(pieces).view({2, -1, a.size(1), a.size(2)});
}

// Calls body(place, rows) for each range of `packed` [2, rows, K, D] and of `to` [2, ·, K, D].
template <class Body>
void ForPlaces(const at::Tensor& packed, const at::Tensor& to, const TokenRanges& places,
               Body body) {
  int64_t row = 0;
  for (const TokenRange& range : places) {
    body(to.narrow(1, range.begin, range.size()), packed.narrow(1, row, range.size()));
    row += range.size();
  }
}

class KeyFetch final : public ContextKeys {
 public:
  KeyFetch(Communicator& comm, const ContextSplit& split, const MaskIntervals& mask, int64_t rows,
           at::Device device)
      : comm_(comm), exchange_(PlanKeyExchange(mask, split, comm.rank())) {
    const TokenRanges& own = split.ranges[static_cast<size_t>(comm.rank())];
    const TokenRanges keys = SeenKeys(mask, own);
    mask_ = MaskOn(device, RowsOverKeys(mask, own, rows, keys), TokenCount(keys));
  }

  AttentionOutput Forward(const LocalHeads& x, const AttentionOptions& options) const override {
    const at::Tensor keys = Fetch(x);
    return IntervalAttentionForward(Input(x, keys, options));
  }

  IntervalAttentionGradients Backward(const at::Tensor& grad_out_THD, const LocalHeads& x,
                                      const AttentionOutput& output,
                                      const AttentionOptions& options) const override {
    const at::Tensor keys = Fetch(x);
    const IntervalAttentionGradients sums = IntervalAttentionGradientSums(
        {.out_THD = grad_out_THD, .lse_TH = {}}, Input(x, keys, options), output);
    const at::Tensor home = SendHome(sums.k_SHD, sums.v_SHD, x.k_TKD.size(0));
    const at::ScalarType dtype = x.q_THD.scalar_type();
    return {sums.q_THD.to(dtype), home[0].to(dtype), home[1].to(dtype)};
  }

 private:
  IntervalAttentionInput Input(const LocalHeads& x, const at::Tensor& keys,
                               const AttentionOptions& options) const {
    return {x.q_THD, keys[0], keys[1], mask_, options};
  }

  // The keys and values that this rank's rows see: [2, keys, K, D].
  at::Tensor Fetch(const LocalHeads& x) const {
    const int64_t heads = x.k_TKD.size(1), width = x.k_TKD.size(2);
    const at::Tensor keys = at::empty({2, exchange_.keys, heads, width}, x.k_TKD.options());
    std::vector<at::Tensor> send, receive;
    for (size_t r = 0; r < exchange_.send.size(); ++r) {
      send.push_back(PackRows(x.k_TKD, x.v_TKD, exchange_.send[r]));
      receive.push_back(
          at::empty({2, TokenCount(exchange_.receive[r]), heads, width}, x.k_TKD.options()));
    }
    Exchange(send, receive, "context.keys");
    for (size_t r = 0; r < receive.size(); ++r) {
      ForPlaces(receive[r], keys, exchange_.receive[r],
                [](const at::Tensor& place, const at::Tensor& rows) { place.copy_(rows); });
    }
    return keys;
  }

  // The sums over all ranks of the gradients of this rank's keys and values: [2, rows, K, D].
  at::Tensor SendHome(const at::Tensor& grad_k_SKD, const at::Tensor& grad_v_SKD,
                      int64_t rows) const {
    const int64_t heads = grad_k_SKD.size(1), width = grad_k_SKD.size(2);
    const at::Tensor home = at::zeros({2, rows, heads, width}, grad_k_SKD.options());
    std::vector<at::Tensor> send, receive;
    for (size_t r = 0; r < exchange_.send.size(); ++r) {
      send.push_back(PackRows(grad_k_SKD, grad_v_SKD, exchange_.receive[r]));
      receive.push_back(
          at::empty({2, TokenCount(exchange_.send[r]), heads, width}, grad_k_SKD.options()));
    }
    Exchange(send, receive, "context.key_gradients");
    for (size_t r = 0; r < receive.size(); ++r) {
      ForPlaces(receive[r], home, exchange_.send[r],
                [](const at::Tensor& place, const at::Tensor& rows) { place.add_(rows); });
    }
    return home;
  }

  void Exchange(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& receive,
                std::string_view what) const {
    if (exchange_.travelling == 0) {  // on every rank: all keys are at home
      const auto me = static_cast<size_t>(comm_.rank());
      receive[me].copy_(send[me]);
      return;
    }
    comm_.AllToAll(send, receive, what).Wait();
  }

  Communicator& comm_;
  KeyExchange exchange_;
  MaskIntervals mask_;
};

}  // namespace

std::unique_ptr<ContextKeys> MakeKeyFetch(Communicator& comm, const ContextSplit& split,
                                          const MaskIntervals& mask, int64_t rows,
                                          at::Device device) {
  return std::make_unique<KeyFetch>(comm, split, mask, rows, device);
}

}  // namespace osler
