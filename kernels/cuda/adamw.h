// AdamW and the gradients' norm over lists of tensors on CUDA.
//
// trainer/optim/adamw.h says what is computed. Tensors are dense; lists are host memory and are
// read before the call returns. As in kernels/cuda/rms_norm.h: device pointers, deterministic,
// asynchronous, thread-safe; 16-byte accesses for tensors whose addresses allow them.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"  // Element, kUnsupported

namespace osler::cuda {

struct AdamWTensor {
  float* master;
  void* parameter;  // written from master, rounded; null: master is the parameter
  void* exp_avg;
  void* exp_avg_sq;
  const void* gradient;
  int64_t count;
  double lr, weight_decay;
};

struct AdamWStep {
  const AdamWTensor* tensors;
  int64_t count;
  Element parameter_element, gradient_element;
  Element moment_element;  // of exp_avg and exp_avg_sq: fp32 or bf16
  double beta1, beta2, eps;
  double bias_correction1, bias_correction2;  // 1 − beta^step
  double gradient_factor;                     // gradients are multiplied by it
  const float* device_factor;                 // and by this, or null
};

struct NormTensor {
  const void* data;
  int64_t count;
};

struct SquaresSum {
  const NormTensor* tensors;
  int64_t count;
  Element element;
  double* sum;        // one number, overwritten
  double* workspace;  // osler_squares_sum_workspace() numbers
};

// factor = multiplier · min(1, clip / (norm + 1e-6)), with norm = multiplier · √sum; clip 0: no
// clip.
struct ClipFactor {
  const double* sum;
  double multiplier, clip;
  float* norm;    // or null
  float* factor;  // or null: AdamWStep's device_factor
};

}  // namespace osler::cuda

extern "C" {
// Each returns 0, a cudaError_t, or kUnsupported. A list takes one launch per some 500 tensors.
int osler_adamw(const osler::cuda::AdamWStep* arguments, void* stream);
int osler_squares_sum(const osler::cuda::SquaresSum* arguments, void* stream);
int64_t osler_squares_sum_workspace(int64_t tensors);  // on the current device
int osler_clip_factor(const osler::cuda::ClipFactor* arguments, void* stream);
}
