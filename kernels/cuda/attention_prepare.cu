#include <cuda_runtime.h>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/device_functions.cuh"
#include "kernels/cuda/element.cuh"

namespace osler::cuda {
namespace {

constexpr int kLanes = 8;      // threads of a row
constexpr int kThreads = 256;  // a block takes kQueryPadding rows of one head

// grad_out as the matrix products of the backward pass see it: their difference from this sum is
// what gradients are made of.
__device__ void Round(Element element, float (&values)[8]) {
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const float2 two = element == Element::kBf16
                           ? Unpack<Element::kBf16>(Pack<Element::kBf16>(values[i], values[i + 1]))
                           : Unpack<Element::kFp16>(Pack<Element::kFp16>(values[i], values[i + 1]));
    values[i] = two.x;
    values[i + 1] = two.y;
  }
}

__device__ float RowDot(const AttentionBackward& p, int query, int head, int lane) {
  const int64_t out_at = query * p.out.token_stride + head * p.out.head_stride;
  const int64_t grad_at = query * p.grad_out.token_stride + head * p.grad_out.head_stride;
  float sum = 0;
  for (int column = lane * 8; column < p.in.width; column += kLanes * 8) {
    float out[8], grad[8];
    Load8(p.out.data, out_at + column, p.out_element, out);
    Load8(p.grad_out.data, grad_at + column, p.out_element, grad);
    if (p.out_element == Element::kFp32) Round(p.in.element, grad);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(out[i], grad[i], sum);
  }
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    PrepareKernel(const __grid_constant__ AttentionBackward p) {
  const int head = blockIdx.x;
  const int lane = threadIdx.x % kLanes;
  const int64_t padded = static_cast<int64_t>(gridDim.y) * kQueryPadding;
  float* lse_plane = p.workspace + head * padded;
  float* delta_plane = lse_plane + p.in.heads * padded;
  const int first = blockIdx.y * kQueryPadding;
#pragma unroll
  for (int i = 0; i < kQueryPadding; i += kThreads / kLanes) {
    const int query = first + i + static_cast<int>(threadIdx.x) / kLanes;
    const bool exists = query < p.in.queries;
    // Clamped rather than skipped: the shuffles want every lane.
    const int row = min(query, p.in.queries - 1);
    const float dot = RowDot(p, row, head, lane);
    if (lane != 0) continue;
    const int64_t at = static_cast<int64_t>(row) * p.in.heads + head;
    const float lse = p.lse[at];
    const bool sees = exists && lse != -INFINITY;
    // The lse of a row that sees nothing has no gradient, whatever its caller's arithmetic on −∞
    // gave: not a number times 0 would reach the keys.
    const float grad_lse = sees && p.grad_lse != nullptr ? p.grad_lse[at] : 0;
    lse_plane[query] = sees ? lse * kLog2E : INFINITY;
    delta_plane[query] = sees ? dot - grad_lse : 0;
  }
}

}  // namespace

cudaError_t AttentionBackwardPrepare(const AttentionBackward& arguments, cudaStream_t stream) {
  const AttentionInput& in = arguments.in;
  if (in.queries <= 0 || in.heads <= 0) return cudaSuccess;
  const dim3 grid(in.heads, static_cast<unsigned>(PaddedQueries(in.queries) / kQueryPadding));
  PrepareKernel<<<grid, kThreads, 0, stream>>>(arguments);
  return cudaGetLastError();
}

}  // namespace osler::cuda
