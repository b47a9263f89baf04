#include "kernels/linear_cross_entropy.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "kernels/accumulate.h"
#include "kernels/cpu_rows.h"
#include "kernels/cuda/device.h"
#include "kernels/row_kernels.h"

namespace osler {
namespace {

// oneDNN compiles a bf16 product anew for every number of rows, and keeps it; chunks of such
// products have a multiple of this many rows, the last ones without target.
int64_t RowMultiple(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 ? 64 : 1;
}

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

void CheckHead(const at::Tensor& hidden_TD, const at::Tensor& weight_VD,
               const at::Tensor& targets_T, const LinearCrossEntropyOptions& options) {
  TORCH_CHECK(hidden_TD.dim() == 2 && weight_VD.dim() == 2 &&
                  hidden_TD.size(1) == weight_VD.size(1) &&
                  hidden_TD.scalar_type() == weight_VD.scalar_type(),
              "the head takes hidden [T, D] and weight [V, D] of one dtype; got ",
              hidden_TD.sizes(), " and ", weight_VD.sizes());
  TORCH_CHECK(targets_T.scalar_type() == at::kLong && targets_T.dim() == 1 &&
                  targets_T.size(0) == hidden_TD.size(0),
              "targets must be int64 [T]");
  TORCH_CHECK(options.chunk_tokens > 0 && options.chunk_bytes > 0,
              "chunk_tokens and chunk_bytes must be positive");
  TORCH_CHECK(options.soft_cap >= 0, "the soft cap must not be negative");
}

// The rows that have a target, a chunk at a time.
class TargetChunks {
 public:
  TargetChunks(const at::Tensor& hidden_TD, const at::Tensor& weight_VD,
               const at::Tensor& targets_T, const LinearCrossEntropyOptions& options)
      : hidden_TD_(hidden_TD), multiple_(RowMultiple(hidden_TD)) {
    CheckHead(hidden_TD, weight_VD, targets_T, options);
    const int64_t vocabulary = weight_VD.size(0);
    index_N_ = at::nonzero(at::ge(targets_T, 0)).squeeze(1);
    all_ = index_N_.size(0) == targets_T.size(0);
    targets_N_ = all_ ? targets_T.contiguous() : at::index_select(targets_T, 0, index_N_);
    if (targets_N_.numel() > 0) {
      const auto largest = targets_N_.max().item<int64_t>();
      TORCH_CHECK(largest < vocabulary, "target ", largest, " is outside the vocabulary of ",
                  vocabulary);
    }
    index_N_ = ToDevice(index_N_, hidden_TD.device());
    targets_N_ = ToDevice(targets_N_, hidden_TD.device());
    size_ = ChunkRows(count(), weight_VD, options);
    logits_CV_ = at::empty({size_, vocabulary}, hidden_TD.options());
  }

  int64_t count() const { return targets_N_.size(0); }

  struct Chunk {
    at::Tensor index_C;  // the rows' places among all; what follows may have more rows, without
                         // target
    at::Tensor hidden_CD, targets_C, logits_CV;  // logits: to be written
  };
  template <typename Body>
  void ForEach(Body body) const {
    for (int64_t from = 0; from < count(); from += size_)
      body(Make(from, std::min(size_, count() - from)));
  }

 private:
  Chunk Make(int64_t from, int64_t length) const {
    const int64_t spare = RoundUp(length, multiple_) - length;
    const at::Tensor index_C = index_N_.narrow(0, from, length);
    const at::Tensor targets_C = targets_N_.narrow(0, from, length);
    const at::Tensor logits_CV = logits_CV_.narrow(0, 0, length + spare);
    if (spare == 0) {
      return {index_C,
              all_ ? hidden_TD_.narrow(0, from, length) : at::index_select(hidden_TD_, 0, index_C),
              targets_C, logits_CV};
    }
    const at::Tensor rows_C = at::cat({index_C, at::zeros({spare}, index_C.options())});
    return {index_C, at::index_select(hidden_TD_, 0, rows_C),
            at::cat({targets_C, at::full({spare}, -1, targets_C.options())}), logits_CV};
  }

  at::Tensor hidden_TD_, index_N_, targets_N_;
  bool all_ = false;
  int64_t multiple_ = 1, size_ = 1;
  at::Tensor logits_CV_;  // of one chunk, used again by the next
};

template <typename A>
double SumLossOf(const SoftmaxTerms& terms, const at::Tensor& targets_T) {
  const auto* targets = targets_T.const_data_ptr<int64_t>();
  const A* max = terms.max_T.const_data_ptr<A>();
  const A* sum = terms.sum_T.const_data_ptr<A>();
  const A* target = terms.target_T.const_data_ptr<A>();
  double loss = 0;
  for (int64_t t = 0; t < targets_T.size(0); ++t) {
    if (targets[t] < 0) continue;
    loss += std::log(static_cast<double>(sum[t])) -
            (static_cast<double>(target[t]) - static_cast<double>(max[t]));
  }
  return loss;
}

}  // namespace

int64_t ChunkRows(int64_t rows, const at::Tensor& weight_VD,
                  const LinearCrossEntropyOptions& options) {
  const int64_t row_bytes = weight_VD.size(0) * static_cast<int64_t>(weight_VD.element_size());
  const int64_t limit = std::max<int64_t>(
      std::min(options.chunk_tokens, options.chunk_bytes / std::max(row_bytes, int64_t{1})), 1);
  const int64_t chunks = std::max<int64_t>((rows + limit - 1) / limit, 1);
  return RoundUp((rows + chunks - 1) / chunks, RowMultiple(weight_VD));
}

at::Tensor TargetLogProbs(const at::Tensor& hidden_TD, const at::Tensor& weight_VD,
                          const at::Tensor& targets_T, int64_t chunk_tokens, double soft_cap) {
  const at::NoGradGuard no_grad;
  const TargetChunks chunks(hidden_TD, weight_VD, targets_T,
                            {.chunk_tokens = chunk_tokens, .soft_cap = soft_cap});
  at::Tensor log_probs_T =
      at::zeros({targets_T.size(0)}, hidden_TD.options().dtype(SumTypeOf(hidden_TD)));
  chunks.ForEach([&](TargetChunks::Chunk chunk) {
    at::mm_out(chunk.logits_CV, chunk.hidden_CD, weight_VD.t());
    const SoftmaxTerms terms =
        RowKernelsFor(chunk.logits_CV)
            .cross_entropy_terms(chunk.logits_CV, chunk.targets_C, {.soft_cap = soft_cap});
    const at::Tensor log_probs_C = at::sub(terms.target_T, terms.max_T).sub_(terms.sum_T.log());
    log_probs_T.index_copy_(0, chunk.index_C, log_probs_C.narrow(0, 0, chunk.index_C.size(0)));
  });
  return log_probs_T;
}

LinearCrossEntropyResult LinearCrossEntropy(const at::Tensor& hidden_TD,
                                            const at::Tensor& weight_VD,
                                            const at::Tensor& targets_T, at::Tensor grad_weight_VD,
                                            const LinearCrossEntropyOptions& options) {
  const at::NoGradGuard no_grad;
  const TargetChunks chunks(hidden_TD, weight_VD, targets_T, options);
  LinearCrossEntropyResult result{
      .count = chunks.count(), .grad_hidden_TD = at::zeros(hidden_TD.sizes(), hidden_TD.options())};
  chunks.ForEach([&](TargetChunks::Chunk chunk) {
    at::mm_out(chunk.logits_CV, chunk.hidden_CD, weight_VD.t());
    const SoftmaxTerms terms = RowKernelsFor(chunk.logits_CV)
                                   .cross_entropy(chunk.logits_CV, chunk.targets_C,
                                                  {.soft_cap = options.soft_cap,
                                                   .gradient_scale = options.gradient_scale});
    AddLoss(terms, chunk.targets_C, result);
    const at::Tensor grad_CD = at::mm(chunk.logits_CV, weight_VD);
    result.grad_hidden_TD.index_copy_(0, chunk.index_C,
                                      grad_CD.narrow(0, 0, chunk.index_C.size(0)));
    if (grad_weight_VD.defined()) {
      AccumulateProduct(grad_weight_VD, chunk.logits_CV, chunk.hidden_CD);
    }
  });
  return result;
}

SoftmaxTerms MergeSoftmaxTerms(const std::vector<SoftmaxTerms>& slices) {
  TORCH_CHECK(!slices.empty(), "a vocabulary has at least one slice");
  const at::NoGradGuard no_grad;
  at::Tensor max_T = slices[0].max_T;
  for (const SoftmaxTerms& slice : slices) max_T = at::maximum(max_T, slice.max_T);
  SoftmaxTerms whole{max_T, at::zeros(max_T.sizes(), max_T.options()),
                     at::zeros(max_T.sizes(), max_T.options())};
  for (const SoftmaxTerms& slice : slices) {
    whole.sum_T.addcmul_(slice.sum_T, at::sub(slice.max_T, max_T).exp_());
    whole.target_T.add_(slice.target_T);
  }
  return whole;
}

double SumLoss(const SoftmaxTerms& whole, const at::Tensor& targets_T) {
  return whole.max_T.scalar_type() == at::kDouble ? SumLossOf<double>(whole, targets_T)
                                                  : SumLossOf<float>(whole, targets_T);
}

void AddLoss(const SoftmaxTerms& whole, const at::Tensor& targets_T,
             LinearCrossEntropyResult& result) {
  if (targets_T.is_cpu()) {
    result.loss_sum += SumLoss(whole, targets_T);
    return;
  }
  const at::Tensor losses = whole.sum_T.to(at::kDouble)
                                .log_()
                                .sub_(at::sub(whole.target_T.to(at::kDouble), whole.max_T))
                                .masked_fill_(at::lt(targets_T, 0), 0)
                                .sum();
  result.loss_on_device =
      result.loss_on_device.defined() ? result.loss_on_device.add_(losses) : losses;
}

SliceLogits SliceForward(const at::Tensor& hidden_TD, const VocabularySlice& slice,
                         const at::Tensor& targets_T, const LinearCrossEntropyOptions& options) {
  const at::NoGradGuard no_grad;
  CheckHead(hidden_TD, slice.weight_VD, targets_T, options);
  SliceLogits mine{.logits_TV = at::mm(hidden_TD, slice.weight_VD.t()), .terms = {}};
  mine.terms = RowKernelsFor(mine.logits_TV)
                   .cross_entropy_terms(mine.logits_TV, targets_T.contiguous(),
                                        {.begin = slice.begin, .soft_cap = options.soft_cap});
  return mine;
}

at::Tensor SliceBackward(SliceLogits mine, const SoftmaxTerms& whole, const at::Tensor& hidden_TD,
                         const VocabularySlice& slice, const at::Tensor& targets_T,
                         at::Tensor grad_weight_VD, const LinearCrossEntropyOptions& options) {
  const at::NoGradGuard no_grad;
  RowKernelsFor(mine.logits_TV)
      .cross_entropy_gradient(mine.logits_TV, targets_T.contiguous(), whole,
                              {.begin = slice.begin,
                               .soft_cap = options.soft_cap,
                               .gradient_scale = options.gradient_scale});
  if (grad_weight_VD.defined()) AccumulateProduct(grad_weight_VD, mine.logits_TV, hidden_TD);
  return at::mm(mine.logits_TV, slice.weight_VD);
}

}  // namespace osler
