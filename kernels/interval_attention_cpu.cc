#include "kernels/interval_attention_cpu.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <optional>

#include "kernels/interval_plan.h"

namespace osler {
namespace {

using Kind = AttentionPiece::Kind;

at::ScalarType SumType(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Rows [from, from + count) of [T, H, D] as the kernel's [1, H, count, D]: a view.
at::Tensor Rows(const at::Tensor& x_THD, int64_t from, int64_t count) {
  return x_THD.narrow(0, from, count).transpose(0, 1).unsqueeze(0);
}

at::Tensor Back(const at::Tensor& x_1HTD) { return x_1HTD.squeeze(0).transpose(0, 1); }

std::optional<at::Tensor> MaskOf(const AttentionPiece& piece, TileMask& tiles) {
  if (piece.kind == Kind::kMasked) return tiles.For(piece);
  return std::nullopt;
}

}  // namespace

IntervalAttentionOutput IntervalAttentionForwardCpu(const at::Tensor& q_THD,
                                                    const at::Tensor& k_SHD,
                                                    const at::Tensor& v_SHD,
                                                    const MaskIntervals& mask,
                                                    const AttentionOptions& options) {
  const std::vector<AttentionPiece> pieces = PlanIntervals(mask, q_THD.size(0), k_SHD.size(0));
  TileMask tiles(mask, SumType(q_THD));
  IntervalAttentionOutput output{.out_THD = at::empty_like(q_THD, at::MemoryFormat::Contiguous),
                                 .lse = std::vector<at::Tensor>(pieces.size())};
  for (size_t i = 0; i < pieces.size(); ++i) {
    const AttentionPiece& piece = pieces[i];
    at::Tensor place = output.out_THD.narrow(0, piece.row, piece.rows);
    if (piece.kind == Kind::kEmpty) {
      place.zero_();
      continue;
    }
    const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        Rows(q_THD, piece.row, piece.rows), Rows(k_SHD, piece.key, piece.keys),
        Rows(v_SHD, piece.key, piece.keys),
        /*dropout_p=*/0, piece.kind == Kind::kCausal, MaskOf(piece, tiles), options.scale);
    place.copy_(Back(out));
    output.lse[i] = lse;
  }
  return output;
}

IntervalAttentionGradients IntervalAttentionBackwardCpu(
    const at::Tensor& grad_THD, const at::Tensor& q_THD, const at::Tensor& k_SHD,
    const at::Tensor& v_SHD, const IntervalAttentionOutput& forward, const MaskIntervals& mask,
    const AttentionOptions& options) {
  const std::vector<AttentionPiece> pieces = PlanIntervals(mask, q_THD.size(0), k_SHD.size(0));
  TileMask tiles(mask, SumType(q_THD));
  const at::Tensor grad_out_THD = grad_THD.contiguous();
  // Keys in a window belong to several pieces: their sums are kept wider than bf16.
  const auto sums = q_THD.options().dtype(SumType(q_THD));
  at::Tensor grad_q_THD = at::empty_like(q_THD, at::MemoryFormat::Contiguous);
  at::Tensor grad_k_SHD = at::zeros(k_SHD.sizes(), sums),
             grad_v_SHD = at::zeros(v_SHD.sizes(), sums);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const AttentionPiece& piece = pieces[i];
    at::Tensor place = grad_q_THD.narrow(0, piece.row, piece.rows);
    if (piece.kind == Kind::kEmpty) {
      place.zero_();
      continue;
    }
    const auto [grad_q, grad_k, grad_v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        Rows(grad_out_THD, piece.row, piece.rows), Rows(q_THD, piece.row, piece.rows),
        Rows(k_SHD, piece.key, piece.keys), Rows(v_SHD, piece.key, piece.keys),
        Rows(forward.out_THD, piece.row, piece.rows), forward.lse[i], /*dropout_p=*/0,
        piece.kind == Kind::kCausal, MaskOf(piece, tiles), options.scale);
    place.copy_(Back(grad_q));
    grad_k_SHD.narrow(0, piece.key, piece.keys).add_(Back(grad_k));
    grad_v_SHD.narrow(0, piece.key, piece.keys).add_(Back(grad_v));
  }
  return {grad_q_THD, grad_k_SHD.to(k_SHD.scalar_type()), grad_v_SHD.to(v_SHD.scalar_type())};
}

}  // namespace osler
