#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/sm90/backward.cuh"

namespace osler::cuda {
namespace sm90 {

// True unless the driver refuses a tensor.
bool MapTiles(BackwardCall* call, const AttentionBackward& arguments, int tile_queries,
              int tile_keys) {
  const AttentionInput& in = arguments.in;
  return MakeTensorMap(&call->q, in.q, in.queries, in.heads, in.width, tile_queries, in.element) &&
         MakeTensorMap(&call->grad_out, arguments.grad_out, in.queries, in.heads, in.width,
                       tile_queries, in.element) &&
         MakeTensorMap(&call->k, in.k, in.keys, in.key_heads, in.width, tile_keys, in.element) &&
         MakeTensorMap(&call->v, in.v, in.keys, in.key_heads, in.width, tile_keys, in.element);
}

BackwardCall DescribeBackward(const AttentionBackward& arguments) {
  const AttentionInput& in = arguments.in;
  BackwardCall call{};
  call.grad_q = MakeOutputRows(arguments.grad_q, arguments.grad_element);
  call.grad_k = MakeOutputRows(arguments.grad_k, arguments.grad_element);
  call.grad_v = MakeOutputRows(arguments.grad_v, arguments.grad_element);
  call.lo = in.lo;
  call.hi = in.hi;
  call.queries = in.queries;
  call.padded_queries = static_cast<int32_t>(PaddedQueries(in.queries));
  call.lse2 = arguments.workspace;
  call.delta = arguments.workspace + static_cast<int64_t>(in.heads) * call.padded_queries;
  call.keys = in.keys;
  call.heads = in.heads;
  call.key_heads = in.key_heads;
  call.width = in.width;
  call.scale = in.scale;
  const bool soft_cap = in.soft_cap > 0.0f;
  call.inner = soft_cap ? 2.0f * kLog2E * in.scale / in.soft_cap : kLog2E * in.scale;
  call.outer = kLog2E * in.soft_cap;
  return call;
}

}  // namespace sm90

int AttentionBackwardSm90(const AttentionBackward& arguments, cudaStream_t stream) {
  const AttentionInput& in = arguments.in;
  if (in.queries == 0 || in.keys == 0 || in.element == Element::kFp32 ||
      arguments.out_element != in.element || in.width > 256 || in.width % 8 != 0) {
    return kUnsupported;
  }
  const int result = sm90::LaunchBackwardKeys(arguments, stream);
  return result == 0 ? sm90::LaunchBackwardQueries(arguments, stream) : result;
}

}  // namespace osler::cuda
