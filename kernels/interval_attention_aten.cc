#include "kernels/interval_attention_aten.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "kernels/cpu_rows.h"

namespace osler {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Key heads [head, head + heads) and queries [row, row + rows).
struct Piece {
  int64_t head, heads, row, rows;
};

// One call's shape and settings. Tensors of a piece are [K, G·T, …]: its key heads, each with the
// queries of its group, one head of the group behind the other.
class Pieces {
 public:
  Pieces(const IntervalAttentionInput& input, AtenProducts products)
      : input_(input),
        wide_(products == AtenProducts::kWide),
        sum_(SumTypeOf(input.q_THD)),
        keys_(input.k_SHD.size(0)),
        group_(input.q_THD.size(1) / input.k_SHD.size(1)) {}

  template <typename Body>
  void ForEach(Body body) const {
    const int64_t row_bytes = std::max<int64_t>(group_ * keys_ * 4, 1);
    const int64_t most = std::max<int64_t>(kAtenScoreBytes / row_bytes, 1);
    const int64_t all_rows = input_.q_THD.size(0), all_heads = input_.k_SHD.size(1);
    const int64_t rows = std::max<int64_t>(std::min(all_rows, most), 1);
    const int64_t heads = std::max<int64_t>(most / rows, 1);
    for (int64_t head = 0; head < all_heads; head += heads) {
      for (int64_t row = 0; row < all_rows; row += rows)
        body(Piece{head, std::min(heads, all_heads - head), row, std::min(rows, all_rows - row)});
    }
  }

  at::Tensor Queries(const at::Tensor& x_THD, const Piece& p) const {
    return Operand(
        InPiece(x_THD, p).permute({1, 2, 0, 3}).reshape({p.heads, group_ * p.rows, x_THD.size(2)}));
  }
  at::Tensor Keys(const at::Tensor& x_SHD, const Piece& p) const {
    return Operand(x_SHD.narrow(1, p.head, p.heads).permute({1, 0, 2}));
  }
  // A number a query and head: [K, G·T, 1] in the type of sums.
  at::Tensor Numbers(const at::Tensor& x_TH, const Piece& p) const {
    return InPiece(x_TH.unsqueeze(2), p)
        .permute({1, 2, 0, 3})
        .reshape({p.heads, group_ * p.rows, 1})
        .to(sum_);
  }
  // Writes what Queries reads.
  void Put(const at::Tensor& x, const at::Tensor& to_THD, const Piece& p) const {
    InPiece(to_THD, p).copy_(x.view({p.heads, group_, p.rows, x.size(2)}).permute({2, 0, 1, 3}));
  }

  // Scores before the softmax, in the type of sums: scaled, and capped where the options say so;
  // −∞ where the mask does.
  at::Tensor Scores(const at::Tensor& q, const at::Tensor& k, const Piece& p) const {
    at::Tensor scores = Product(q, k.transpose(1, 2)).mul_(input_.options.scale);
    if (const auto cap = input_.options.soft_cap; cap.has_value())
      scores.div_(*cap).tanh_().mul_(*cap);
    scores.view({p.heads, group_, p.rows, keys_}).masked_fill_(Unseen(p), -kInfinity);
    return scores;
  }
  // a b, of operands: in the type of sums.
  at::Tensor Product(const at::Tensor& a, const at::Tensor& b) const {
    if (a.scalar_type() == sum_) return at::bmm(a, b);
    return a.is_cpu() ? at::bmm(a.to(sum_), b.to(sum_)) : at::bmm(a, b, sum_);
  }
  at::Tensor Operand(const at::Tensor& x) const {
    return x.to(wide_ ? sum_ : input_.q_THD.scalar_type());
  }

 private:
  // [T, K, G, D] of a piece.
  at::Tensor InPiece(const at::Tensor& x_THD, const Piece& p) const {
    return x_THD.narrow(0, p.row, p.rows).unflatten(1, {-1, group_}).narrow(1, p.head, p.heads);
  }
  at::Tensor Unseen(const Piece& p) const {
    const at::Tensor key_S = at::arange(keys_, input_.mask.lo_T.options());
    const auto end = [&](const at::Tensor& x_T) {
      return x_T.narrow(0, p.row, p.rows).unsqueeze(1);
    };
    return at::logical_or(at::lt(key_S, end(input_.mask.lo_T)),
                          at::ge(key_S, end(input_.mask.hi_T)));
  }

  const IntervalAttentionInput& input_;
  const bool wide_;
  const at::ScalarType sum_;
  const int64_t keys_, group_;
};

// e^(scores − lse), in the place of the scores: 0 in rows that see nothing.
at::Tensor Shares(at::Tensor scores, const at::Tensor& lse) {
  return scores.sub_(lse.masked_fill(lse.eq(-kInfinity), kInfinity)).exp_();
}

// The slope of c · tanh(x / c) where it has this value; 0 where the mask hides it.
at::Tensor CapSlope(const at::Tensor& scores, double cap) {
  const at::Tensor share = scores.masked_fill(scores.eq(-kInfinity), cap).div_(cap);
  return share.square_().neg_().add_(1);
}

}  // namespace

AttentionOutput IntervalAttentionForwardAten(const IntervalAttentionInput& input,
                                             at::ScalarType out, AtenProducts products) {
  const at::Tensor& q_THD = input.q_THD;
  const AttentionOutput output{
      .out_THD = at::empty(q_THD.sizes(), q_THD.options().dtype(out)),
      .lse_TH = at::empty({q_THD.size(0), q_THD.size(1)}, q_THD.options().dtype(SumTypeOf(q_THD)))};
  const Pieces pieces(input, products);
  pieces.ForEach([&](const Piece& p) {
    const at::Tensor scores =
        pieces.Scores(pieces.Queries(q_THD, p), pieces.Keys(input.k_SHD, p), p);
    const at::Tensor lse = at::logsumexp(scores, {2}, /*keepdim=*/true);
    pieces.Put(lse, output.lse_TH.unsqueeze(2), p);
    pieces.Put(pieces.Product(pieces.Operand(Shares(scores, lse)), pieces.Keys(input.v_SHD, p)),
               output.out_THD, p);
  });
  return output;
}

IntervalAttentionGradients IntervalAttentionBackwardAten(const AttentionOutput& grad,
                                                         const IntervalAttentionInput& input,
                                                         const AttentionOutput& output,
                                                         at::ScalarType type,
                                                         AtenProducts products) {
  const auto sums = input.q_THD.options().dtype(SumTypeOf(input.q_THD));
  const IntervalAttentionGradients result{at::empty(input.q_THD.sizes(), sums.dtype(type)),
                                          at::zeros(input.k_SHD.sizes(), sums),
                                          at::zeros(input.v_SHD.sizes(), sums)};
  at::Tensor delta_TH = at::mul(grad.out_THD.to(sums.dtype()), output.out_THD).sum(2);
  if (grad.lse_TH.defined()) delta_TH.sub_(grad.lse_TH);
  const Pieces pieces(input, products);
  pieces.ForEach([&](const Piece& p) {
    const at::Tensor q = pieces.Queries(input.q_THD, p), k = pieces.Keys(input.k_SHD, p),
                     v = pieces.Keys(input.v_SHD, p), d_out = pieces.Queries(grad.out_THD, p);
    at::Tensor scores = pieces.Scores(q, k, p), slope;
    if (input.options.soft_cap.has_value()) slope = CapSlope(scores, *input.options.soft_cap);
    const at::Tensor shares = Shares(scores, pieces.Numbers(output.lse_TH, p));
    const auto add = [&](const at::Tensor& to_SHD, const at::Tensor& x) {
      to_SHD.narrow(1, p.head, p.heads).permute({1, 0, 2}).add_(x);
    };
    add(result.v_SHD, pieces.Product(pieces.Operand(shares).transpose(1, 2), d_out));
    at::Tensor d_scores = pieces.Product(d_out, v.transpose(1, 2))
                              .sub_(pieces.Numbers(delta_TH, p))
                              .mul_(shares)
                              .mul_(input.options.scale);
    if (slope.defined()) d_scores.mul_(slope);
    d_scores = pieces.Operand(d_scores);
    pieces.Put(pieces.Product(d_scores, k), result.q_THD, p);
    add(result.k_SHD, pieces.Product(d_scores.transpose(1, 2), q));
  });
  return {result.q_THD, result.k_SHD.to(type), result.v_SHD.to(type)};
}

}  // namespace osler
