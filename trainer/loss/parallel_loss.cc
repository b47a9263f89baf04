#include "trainer/loss/parallel_loss.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cpu_rows.h"
#include "kernels/cuda/device.h"

namespace osler {
namespace {

// The rows with a target, chunk by chunk. A chunk has as many places for each rank's rows; those
// left over are zero and have no target.
class RowChunks {
 public:
  RowChunks(Communicator& tensor, const at::Tensor& hidden_RD, const at::Tensor& head_VD,
            const at::Tensor& targets_T, const LinearCrossEntropyOptions& options)
      : tensor_(tensor), hidden_RD_(hidden_RD), targets_T_(targets_T) {
    const int64_t rows = hidden_RD.size(0), ranks = tensor.size();
    TORCH_CHECK(targets_T.dim() == 1 && targets_T.size(0) == rows * ranks, "targets of shape ",
                targets_T.sizes(), " for ", ranks, " ranks of ", rows, " rows");
    if (targets_T.numel() > 0) {
      const auto largest = targets_T.max().item<int64_t>();
      TORCH_CHECK(largest < ranks * head_VD.size(0), "target ", largest,
                  " is outside the vocabulary of ", ranks * head_VD.size(0));
    }
    for (int64_t r = 0; r < ranks; ++r) {
      const at::Tensor own_T = targets_T.narrow(0, r * rows, rows);
      rows_.push_back(at::add(at::nonzero(at::ge(own_T, 0)).squeeze(1), r * rows));
      count_ += rows_.back().size(0);
      most_ = std::max(most_, rows_.back().size(0));
    }
    places_ = std::max<int64_t>(ChunkRows(most_ * ranks, head_VD, options) / ranks, 1);
  }

  // All rows with a target.
  int64_t count() const { return count_; }

  struct Chunk {
    std::vector<at::Tensor> rows;  // by rank: its rows' indices among all rows
    at::Tensor hidden_CD;          // `places` rows a rank
    at::Tensor targets_C;
    Handle arrival;  // of hidden_CD
  };
  // visit(chunk), the next one's rows being under way.
  template <typename Visit>
  void ForEach(Visit visit) const {
    if (most_ == 0) return;
    Chunk next = Start(0);
    for (int64_t from = 0; from < most_; from += places_) {
      Chunk chunk = std::exchange(next, {});
      if (from + places_ < most_) next = Start(from + places_);
      chunk.arrival.Wait();
      visit(chunk);
    }
  }
  // Rank r's part of a chunk's values, without the places left over.
  at::Tensor PartOf(const Chunk& chunk, const at::Tensor& values_C, int64_t r) const {
    return values_C.narrow(0, r * places_, chunk.rows[static_cast<size_t>(r)].size(0));
  }
  // The places among this rank's rows of its rows in the chunk.
  at::Tensor Own(const Chunk& chunk) const {
    return at::sub(chunk.rows[static_cast<size_t>(tensor_.rank())],
                   tensor_.rank() * hidden_RD_.size(0));
  }

 private:
  Chunk Start(int64_t from) const {
    const int64_t ranks = tensor_.size();
    Chunk chunk;
    chunk.hidden_CD = at::zeros({ranks * places_, hidden_RD_.size(1)}, hidden_RD_.options());
    chunk.targets_C = at::full({ranks * places_}, -1, targets_T_.options());
    for (int64_t r = 0; r < ranks; ++r) {
      const at::Tensor& all = rows_[static_cast<size_t>(r)];
      const int64_t begin = std::min(from, all.size(0));
      const at::Tensor rows = all.narrow(0, begin, std::min(places_, all.size(0) - begin));
      chunk.rows.push_back(ToDevice(rows, hidden_RD_.device()));
      PartOf(chunk, chunk.targets_C, r).copy_(at::index_select(targets_T_, 0, rows));
    }
    chunk.targets_C = ToDevice(chunk.targets_C, hidden_RD_.device());
    const at::Tensor own_C = Own(chunk);
    PartOf(chunk, chunk.hidden_CD, tensor_.rank()).copy_(at::index_select(hidden_RD_, 0, own_C));
    chunk.arrival = tensor_.AllGather({chunk.hidden_CD.view(-1)}, "hidden rows of the head");
    return chunk;
  }

  Communicator& tensor_;
  at::Tensor hidden_RD_, targets_T_;
  std::vector<at::Tensor> rows_;
  int64_t count_ = 0, most_ = 0, places_ = 1;
};

// The terms of the whole vocabulary: one exchange of three numbers a row.
SoftmaxTerms WholeTerms(Communicator& tensor, const SoftmaxTerms& mine) {
  const at::Tensor all = at::empty({tensor.size(), 3, mine.max_T.size(0)}, mine.max_T.options());
  const at::Tensor own = all[tensor.rank()];
  own[0].copy_(mine.max_T);
  own[1].copy_(mine.sum_T);
  own[2].copy_(mine.target_T);
  tensor.AllGather({all.view(-1)}, "softmax terms of the head").Wait();
  std::vector<SoftmaxTerms> slices;
  for (int64_t r = 0; r < tensor.size(); ++r) slices.push_back({all[r][0], all[r][1], all[r][2]});
  return MergeSoftmaxTerms(slices);
}

VocabularySlice SliceOfHead(Communicator& tensor, const at::Tensor& head_VD) {
  return {.weight_VD = head_VD, .begin = tensor.rank() * head_VD.size(0)};
}

}  // namespace

LinearCrossEntropyResult ParallelLoss(Communicator* tensor, const at::Tensor& hidden_RD,
                                      const at::Tensor& head_VD, const at::Tensor& targets_T,
                                      at::Tensor grad_head_VD,
                                      const LinearCrossEntropyOptions& options) {
  if (tensor == nullptr || tensor->size() == 1)
    return LinearCrossEntropy(hidden_RD, head_VD, targets_T, std::move(grad_head_VD), options);
  const at::NoGradGuard no_grad;
  const RowChunks chunks(*tensor, hidden_RD, head_VD, targets_T, options);
  const VocabularySlice slice = SliceOfHead(*tensor, head_VD);
  LinearCrossEntropyResult result{
      .count = chunks.count(), .grad_hidden_TD = at::zeros(hidden_RD.sizes(), hidden_RD.options())};
  chunks.ForEach([&](const RowChunks::Chunk& chunk) {
    SliceLogits mine = SliceForward(chunk.hidden_CD, slice, chunk.targets_C, options);
    const SoftmaxTerms whole = WholeTerms(*tensor, mine.terms);
    AddLoss(whole, chunk.targets_C, result);
    const at::Tensor grad_CD = SliceBackward(std::move(mine), whole, chunk.hidden_CD, slice,
                                             chunk.targets_C, grad_head_VD, options);
    tensor->ReduceScatter({grad_CD.view(-1)}, "gradient of the head's rows").Wait();
    result.grad_hidden_TD.index_copy_(0, chunks.Own(chunk),
                                      chunks.PartOf(chunk, grad_CD, tensor->rank()));
  });
  return result;
}

at::Tensor ParallelTargetLogProbs(Communicator* tensor, const at::Tensor& hidden_RD,
                                  const at::Tensor& head_VD, const at::Tensor& targets_T,
                                  int64_t chunk_tokens, double soft_cap) {
  if (tensor == nullptr || tensor->size() == 1)
    return TargetLogProbs(hidden_RD, head_VD, targets_T, chunk_tokens, soft_cap);
  const at::NoGradGuard no_grad;
  const LinearCrossEntropyOptions options{.chunk_tokens = chunk_tokens, .soft_cap = soft_cap};
  const RowChunks chunks(*tensor, hidden_RD, head_VD, targets_T, options);
  const VocabularySlice slice = SliceOfHead(*tensor, head_VD);
  at::Tensor log_probs_T =
      at::zeros({targets_T.size(0)}, hidden_RD.options().dtype(SumTypeOf(hidden_RD)));
  chunks.ForEach([&](const RowChunks::Chunk& chunk) {
    const SoftmaxTerms whole =
        WholeTerms(*tensor, SliceForward(chunk.hidden_CD, slice, chunk.targets_C, options).terms);
    const at::Tensor log_probs_C = at::sub(whole.target_T, whole.max_T).sub_(whole.sum_T.log());
    for (int64_t r = 0; r < tensor->size(); ++r) {
      log_probs_T.index_copy_(0, chunk.rows[static_cast<size_t>(r)],
                              chunks.PartOf(chunk, log_probs_C, r));
    }
  });
  return log_probs_T;
}

}  // namespace osler
