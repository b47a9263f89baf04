#include <cuda_runtime_api.h>

#include "kernels/cuda/sm90/tma.cuh"

namespace osler::cuda::sm90 {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// The driver's function, without linking to the driver: this code also loads where there is none.
EncodeTiled FindEncodeTiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  return error == cudaSuccess && found == cudaDriverEntryPointSuccess
             ? reinterpret_cast<EncodeTiled>(function)
             : nullptr;
}

}  // namespace

bool MakeTensorMap(CUtensorMap* map, const Rows& rows, int tokens, int heads, int width,
                   int tile_rows, Element element) {
  static const EncodeTiled encode = FindEncodeTiled();
  if (encode == nullptr || element == Element::kFp32) return false;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(tokens),
                               static_cast<cuuint64_t>(heads)};
  // A dimension of one element may have any stride in its tensor, but not here.
  const cuuint64_t strides[2] = {
      tokens == 1 ? 256 * 2 : static_cast<cuuint64_t>(rows.token_stride) * 2,
      heads == 1 ? 256 * 2 : static_cast<cuuint64_t>(rows.head_stride) * 2};
  const cuuint32_t box[3] = {kPanelWidth, static_cast<cuuint32_t>(tile_rows), 1};
  const cuuint32_t every[3] = {1, 1, 1};
  return encode(map,
                element == Element::kBf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                          : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                3, rows.data, sizes, strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace osler::cuda::sm90
