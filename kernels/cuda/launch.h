// From torch tensors to what the CUDA kernels of this folder are told. For its .cc files.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/device_query.h"

namespace osler {

// Whether the kernels know the type.
inline bool HasElement(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kFloat;
}
inline cuda::Element CudaElement(at::ScalarType type) {
  return type == at::kBFloat16 ? cuda::Element::kBf16 : cuda::Element::kFp32;
}
inline cuda::Element CudaElement(const at::Tensor& x) { return CudaElement(x.scalar_type()); }

inline const void* DataOrNull(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr() : nullptr;
}
inline void* MutableOrNull(const at::Tensor& x) {
  return x.defined() ? x.mutable_data_ptr() : nullptr;
}
inline cuda::Rows RowsOf(const at::Tensor& x_THD) {
  return {const_cast<void*>(x_THD.const_data_ptr()), x_THD.stride(0), x_THD.stride(1)};
}

// Whether a kernel took the call; it may lack the shape. Throws c10::Error for what CUDA says.
inline bool Took(int result, const char* what) {
  TORCH_CHECK(result == cuda::kUnsupported || result == 0, what,
              " failed: CUDA says: ", osler_cuda_error_text(result));
  return result == 0;
}

}  // namespace osler
