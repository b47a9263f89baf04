#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "model/registry.h"

namespace osler {
namespace {

// Elements 2b and 2b + 1 are the two normals that Box–Muller makes of Philox block b.
template <typename T>
void FillBlocks(uint64_t key, double std, T* values, int64_t count, int64_t first_block,
                int64_t end_block) {
  constexpr double kUnit = 0x1.0p-53;
  for (int64_t b = first_block; b < end_block; ++b) {
    const auto counter = static_cast<uint64_t>(b);
    const Philox4 x =
        Philox(key, {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0});
    const uint64_t low = x[0] | static_cast<uint64_t>(x[1]) << 32,
                   high = x[2] | static_cast<uint64_t>(x[3]) << 32;
    const double u = (static_cast<double>(low >> 11) + 0.5) * kUnit;  // in (0, 1): log is finite
    const double angle = 2 * std::numbers::pi * static_cast<double>(high >> 11) * kUnit;
    const double radius = std * std::sqrt(-2 * std::log(u));
    values[2 * b] = static_cast<T>(radius * std::cos(angle));
    if (2 * b + 1 < count) values[2 * b + 1] = static_cast<T>(radius * std::sin(angle));
  }
}

template <typename T>
void FillNormal(uint64_t key, double std, T* values, int64_t count) {
  const int64_t blocks = (count + 1) / 2;
  const int64_t useful =
      std::max<int64_t>(blocks / (1 << 15), 1);  // a thread costs more than 32k blocks
  const int64_t threads =
      std::min<int64_t>(std::max(1U, std::thread::hardware_concurrency()), useful);
  std::vector<std::thread> workers;
  for (int64_t t = 1; t < threads; ++t) {
    workers.emplace_back(FillBlocks<T>, key, std, values, count, blocks * t / threads,
                         blocks * (t + 1) / threads);
  }
  FillBlocks(key, std, values, count, 0, blocks / threads);
  for (std::thread& worker : workers) worker.join();
}

void FillNormal(uint64_t key, double std, const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return FillNormal(key, std, tensor.mutable_data_ptr<double>(), tensor.numel());
    case at::kFloat: return FillNormal(key, std, tensor.mutable_data_ptr<float>(), tensor.numel());
    case at::kBFloat16:
      return FillNormal(key, std, tensor.mutable_data_ptr<at::BFloat16>(), tensor.numel());
    default: TORCH_CHECK(false, "parameters are fp32, fp64 or bf16");
  }
}

}  // namespace

void InitializeParameters(ParameterStore& store, const ModelSpec& spec, uint64_t seed,
                          at::ScalarType dtype) {
  for (ParameterSlot& slot : store.slots()) {
    const ModelSpec::Init init = spec.init(slot.name);
    if (init.std == 0) {
      slot.local = at::full(slot.shape, init.constant, dtype);
      continue;
    }
    slot.local = at::empty(slot.shape, dtype);
    FillNormal(PhiloxKey(seed, absl::StrCat("init/", slot.name)), init.std, slot.local);
  }
}

}  // namespace osler
