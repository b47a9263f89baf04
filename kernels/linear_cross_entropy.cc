#include "kernels/linear_cross_entropy.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace osler {
namespace {

constexpr int64_t kLogitBytes = int64_t{128} << 20;  // of one chunk, in the softmax's dtype
constexpr int64_t kProductBytes = int64_t{64}
                                  << 20;  // of a narrow product on its way into a wide accumulator

at::ScalarType SoftmaxType(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The rows that have a target: the others cost nothing.
struct TargetRows {
  at::Tensor index_N;  // undefined when every row has one
  at::Tensor hidden_ND;
  at::Tensor targets_N;
  int64_t chunk = 1;  // rows at a time
};

TargetRows SelectRows(const at::Tensor& hidden_TD, const at::Tensor& weight_VD,
                      const at::Tensor& targets_T, int64_t chunk_tokens) {
  TORCH_CHECK(hidden_TD.dim() == 2 && weight_VD.dim() == 2 &&
                  hidden_TD.size(1) == weight_VD.size(1) &&
                  hidden_TD.scalar_type() == weight_VD.scalar_type(),
              "the head takes hidden [T, D] and weight [V, D] of one dtype; got ",
              hidden_TD.sizes(), " and ", weight_VD.sizes());
  TORCH_CHECK(targets_T.scalar_type() == at::kLong && targets_T.dim() == 1 &&
                  targets_T.size(0) == hidden_TD.size(0),
              "targets must be int64 [T]");
  TORCH_CHECK(chunk_tokens > 0, "chunk_tokens must be positive");
  const int64_t vocabulary = weight_VD.size(0);
  TargetRows rows;
  rows.index_N = at::nonzero(at::ge(targets_T, 0)).squeeze(1);
  const bool all = rows.index_N.size(0) == targets_T.size(0);
  rows.hidden_ND = all ? hidden_TD : at::index_select(hidden_TD, 0, rows.index_N);
  rows.targets_N = all ? targets_T : at::index_select(targets_T, 0, rows.index_N);
  if (all) rows.index_N.reset();
  if (rows.targets_N.numel() > 0) {
    const auto largest = rows.targets_N.max().item<int64_t>();
    TORCH_CHECK(largest < vocabulary, "target ", largest, " is outside the vocabulary of ",
                vocabulary);
  }
  const auto width = static_cast<int64_t>(c10::elementSize(SoftmaxType(hidden_TD)));
  rows.chunk = std::min(chunk_tokens, std::max<int64_t>(kLogitBytes / (vocabulary * width), 1));
  return rows;
}

// The rows' values at their places among all T rows; the others are zero.
at::Tensor Scatter(const TargetRows& rows, const at::Tensor& values_N, int64_t length) {
  if (!rows.index_N.defined()) return values_N;
  std::vector<int64_t> shape = values_N.sizes().vec();
  shape[0] = length;
  return at::zeros(shape, values_N.options()).index_copy_(0, rows.index_N, values_N);
}

struct ChunkSoftmax {
  at::Tensor exp_CV;        // exp(logit − largest), unnormalised
  at::Tensor sum_C1;        // of exp_CV
  at::Tensor log_probs_C1;  // of the targets
};

// The logits are rounded to the weight's dtype before the softmax, as the reference
// implementation's are.
ChunkSoftmax Softmax(const at::Tensor& hidden_CD, const at::Tensor& weight_VD,
                     const at::Tensor& targets_C) {
  at::Tensor logits = at::matmul(hidden_CD, weight_VD.t()).to(SoftmaxType(hidden_CD));
  logits.sub_(at::amax(logits, 1, /*keepdim=*/true));
  at::Tensor targets = at::gather(logits, 1, targets_C.unsqueeze(1));
  logits.exp_();
  const at::Tensor sum = at::sum(logits, 1, /*keepdim=*/true);
  return {logits, sum, targets.sub_(sum.log())};
}

// sum_VD += gradᵀ hidden. A product narrower than the accumulator is made a slice of the vocabulary
// at a time.
void AddWeightGradient(const at::Tensor& grad_CV, const at::Tensor& hidden_CD, at::Tensor& sum_VD) {
  if (sum_VD.scalar_type() == hidden_CD.scalar_type()) {
    sum_VD.addmm_(grad_CV.t(), hidden_CD);
    return;
  }
  const int64_t vocabulary = sum_VD.size(0);
  const auto row_bytes = static_cast<int64_t>(hidden_CD.element_size()) * hidden_CD.size(1);
  const int64_t step = std::max<int64_t>(kProductBytes / row_bytes, 1);
  for (int64_t v = 0; v < vocabulary; v += step) {
    const int64_t count = std::min(step, vocabulary - v);
    sum_VD.narrow(0, v, count).add_(at::matmul(grad_CV.narrow(1, v, count).t(), hidden_CD));
  }
}

}  // namespace

at::Tensor TargetLogProbs(const at::Tensor& hidden_TD, const at::Tensor& weight_VD,
                          const at::Tensor& targets_T, int64_t chunk_tokens) {
  const at::NoGradGuard no_grad;
  const TargetRows rows = SelectRows(hidden_TD, weight_VD, targets_T, chunk_tokens);
  const int64_t count = rows.targets_N.size(0);
  at::Tensor log_probs_N = at::zeros({count}, hidden_TD.options().dtype(SoftmaxType(hidden_TD)));
  for (int64_t from = 0; from < count; from += rows.chunk) {
    const int64_t length = std::min(rows.chunk, count - from);
    const ChunkSoftmax chunk = Softmax(rows.hidden_ND.narrow(0, from, length), weight_VD,
                                       rows.targets_N.narrow(0, from, length));
    log_probs_N.narrow(0, from, length).copy_(chunk.log_probs_C1.squeeze(1));
  }
  return Scatter(rows, log_probs_N, targets_T.size(0));
}

LinearCrossEntropyResult LinearCrossEntropy(const at::Tensor& hidden_TD,
                                            const at::Tensor& weight_VD,
                                            const at::Tensor& targets_T, at::Tensor grad_weight_VD,
                                            const LinearCrossEntropyOptions& options) {
  const at::NoGradGuard no_grad;
  const TargetRows rows = SelectRows(hidden_TD, weight_VD, targets_T, options.chunk_tokens);
  const int64_t count = rows.targets_N.size(0);
  LinearCrossEntropyResult result{.count = count, .grad_hidden_TD = {}};
  at::Tensor grad_hidden_ND = at::zeros({count, hidden_TD.size(1)}, hidden_TD.options());
  for (int64_t from = 0; from < count; from += rows.chunk) {
    const int64_t length = std::min(rows.chunk, count - from);
    const at::Tensor hidden_CD = rows.hidden_ND.narrow(0, from, length);
    const at::Tensor targets_C1 = rows.targets_N.narrow(0, from, length).unsqueeze(1);
    ChunkSoftmax chunk = Softmax(hidden_CD, weight_VD, targets_C1.squeeze(1));
    result.loss_sum -= at::sum(chunk.log_probs_C1, at::kDouble).item<double>();
    // ∂loss/∂logits = softmax − one-hot, in the place of the exponentials.
    at::Tensor grad_CV = chunk.exp_CV.mul_(chunk.sum_C1.reciprocal().mul_(options.gradient_scale));
    grad_CV.scatter_add_(1, targets_C1,
                         at::full({length, 1}, -options.gradient_scale, grad_CV.options()));
    grad_CV = grad_CV.to(hidden_TD.scalar_type());
    grad_hidden_ND.narrow(0, from, length).copy_(at::matmul(grad_CV, weight_VD));
    if (grad_weight_VD.defined()) AddWeightGradient(grad_CV, hidden_CD, grad_weight_VD);
  }
  result.grad_hidden_TD = Scatter(rows, grad_hidden_ND, targets_T.size(0));
  return result;
}

}  // namespace osler
