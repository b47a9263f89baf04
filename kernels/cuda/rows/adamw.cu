#include "kernels/cuda/adamw.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/rows/tensor_list.cuh"

namespace osler::cuda {
namespace {

constexpr int kThreads = 256, kMaxEntries = 480;

struct Entry {
  float* master;
  void* parameter;
  void* exp_avg;
  void* exp_avg_sq;
  const void* gradient;
  int64_t count;
  unsigned first_chunk;
  float keep;      // 1 − lr · weight_decay
  float step;      // lr / bias_correction1
  int32_t packed;  // addresses are multiples of 16 bytes
};

struct List {
  int32_t count;
  Element parameter_element, gradient_element, moment_element;
  float beta1_rest, beta2, beta2_rest, eps;  // …_rest: 1 − beta
  float root_correction2, gradient_factor;
  const float* device_factor;
  Entry entries[kMaxEntries];
};
static_assert(sizeof(List) <= 32764, "a kernel's arguments");

struct Value {
  float master, exp_avg, exp_avg_sq;
};

// torch's order of operations.
__device__ inline Value Updated(Value v, float gradient, const List& list, const Entry& entry) {
  v.exp_avg = fmaf(list.beta1_rest, gradient - v.exp_avg, v.exp_avg);
  v.exp_avg_sq = v.exp_avg_sq * list.beta2 + list.beta2_rest * gradient * gradient;
  const float denominator = sqrtf(v.exp_avg_sq) / list.root_correction2 + list.eps;
  v.master = v.master * entry.keep - entry.step * v.exp_avg / denominator;
  return v;
}

__device__ inline void UpdateEight(const List& list, const Entry& entry, float factor, int64_t i) {
  const Eight master_raw = Eight::Load(entry.master, i, Element::kFp32);
  const Eight first_raw = Eight::Load(entry.exp_avg, i, list.moment_element);
  const Eight second_raw = Eight::Load(entry.exp_avg_sq, i, list.moment_element);
  const Eight gradient_raw = Eight::Load(entry.gradient, i, list.gradient_element);
  float master[8], first[8], second[8], gradient[8];
  master_raw.Widen(Element::kFp32, master);
  first_raw.Widen(list.moment_element, first);
  second_raw.Widen(list.moment_element, second);
  gradient_raw.Widen(list.gradient_element, gradient);
#pragma unroll
  for (int lane = 0; lane < 8; ++lane) {
    const Value v =
        Updated({master[lane], first[lane], second[lane]}, gradient[lane] * factor, list, entry);
    master[lane] = v.master;
    first[lane] = v.exp_avg;
    second[lane] = v.exp_avg_sq;
  }
  StoreEight(entry.master, i, Element::kFp32, master);
  StoreEight(entry.exp_avg, i, list.moment_element, first);
  StoreEight(entry.exp_avg_sq, i, list.moment_element, second);
  if (entry.parameter != nullptr) StoreEight(entry.parameter, i, list.parameter_element, master);
}

__device__ inline void UpdateOne(const List& list, const Entry& entry, float factor, int64_t i) {
  const Value v = Updated({entry.master[i], LoadOne(entry.exp_avg, i, list.moment_element),
                           LoadOne(entry.exp_avg_sq, i, list.moment_element)},
                          LoadOne(entry.gradient, i, list.gradient_element) * factor, list, entry);
  entry.master[i] = v.master;
  StoreOne(entry.exp_avg, i, list.moment_element, v.exp_avg);
  StoreOne(entry.exp_avg_sq, i, list.moment_element, v.exp_avg_sq);
  if (entry.parameter != nullptr) StoreOne(entry.parameter, i, list.parameter_element, v.master);
}

__global__ void __launch_bounds__(kThreads) AdamWKernel(const __grid_constant__ List list) {
  const Entry& entry = list.entries[EntryOfChunk(list, blockIdx.x)];
  const int64_t begin = int64_t{blockIdx.x - entry.first_chunk} * kChunk;
  const auto length = static_cast<int>(min(int64_t{kChunk}, entry.count - begin));
  const float factor = list.device_factor == nullptr ? list.gradient_factor
                                                     : list.gradient_factor * *list.device_factor;
  const int packed = entry.packed != 0 ? length / 8 * 8 : 0;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = 8 * thread; i < packed; i += 8 * kThreads)
    UpdateEight(list, entry, factor, begin + i);
  for (int i = packed + thread; i < length; i += kThreads)
    UpdateOne(list, entry, factor, begin + i);
}

Entry EntryOf(const AdamWTensor& tensor, const AdamWStep& step, unsigned first_chunk) {
  return {.master = tensor.master,
          .parameter = tensor.parameter,
          .exp_avg = tensor.exp_avg,
          .exp_avg_sq = tensor.exp_avg_sq,
          .gradient = tensor.gradient,
          .count = tensor.count,
          .first_chunk = first_chunk,
          .keep = static_cast<float>(1 - tensor.lr * tensor.weight_decay),
          .step = static_cast<float>(tensor.lr / step.bias_correction1),
          .packed = AllAligned16(static_cast<const void*>(tensor.master), tensor.parameter,
                                 tensor.exp_avg, tensor.exp_avg_sq, tensor.gradient)};
}

List EmptyList(const AdamWStep& step) {
  List list = {};
  list.parameter_element = step.parameter_element;
  list.gradient_element = step.gradient_element;
  list.moment_element = step.moment_element;
  list.beta1_rest = static_cast<float>(1 - step.beta1);
  list.beta2 = static_cast<float>(step.beta2);
  list.beta2_rest = static_cast<float>(1 - step.beta2);
  list.eps = static_cast<float>(step.eps);
  list.root_correction2 = static_cast<float>(std::sqrt(step.bias_correction2));
  list.gradient_factor = static_cast<float>(step.gradient_factor);
  list.device_factor = step.device_factor;
  return list;
}

}  // namespace
}  // namespace osler::cuda

int osler_adamw(const osler::cuda::AdamWStep* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  List list = EmptyList(*arguments);
  unsigned chunks = 0;
  for (int64_t i = 0; i < arguments->count; ++i) {
    const AdamWTensor& tensor = arguments->tensors[i];
    if (tensor.count > 0) {
      list.entries[list.count++] = EntryOf(tensor, *arguments, chunks);
      chunks += Chunks(tensor.count);
    }
    if (list.count < kMaxEntries && i + 1 < arguments->count) continue;
    if (chunks == 0) break;
    AdamWKernel<<<chunks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(list);
    const cudaError_t launched = cudaGetLastError();
    if (launched != cudaSuccess) return launched;
    list.count = 0;
    chunks = 0;
  }
  return cudaSuccess;
}
