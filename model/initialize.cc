#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "model/registry.h"
#include "parallel/tensor_part.h"

namespace osler {
namespace {

// Elements 2b and 2b + 1 are the two normals that Box–Muller makes of Philox block b.
// Values [first, end) of the stream: 2b and 2b + 1 are the two normals that Box–Muller makes of
// Philox block b.
template <typename T>
void FillRange(uint64_t key, double std, T* values, int64_t first, int64_t end) {
  constexpr double kUnit = 0x1.0p-53;
  for (int64_t b = first / 2; 2 * b < end; ++b) {
    const auto counter = static_cast<uint64_t>(b);
    const Philox4 x =
        Philox(key, {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0});
    const uint64_t low = x[0] | static_cast<uint64_t>(x[1]) << 32,
                   high = x[2] | static_cast<uint64_t>(x[3]) << 32;
    const double u = (static_cast<double>(low >> 11) + 0.5) * kUnit;  // in (0, 1): log is finite
    const double angle = 2 * std::numbers::pi * static_cast<double>(high >> 11) * kUnit;
    const double radius = std * std::sqrt(-2 * std::log(u));
    if (2 * b >= first) values[2 * b - first] = static_cast<T>(radius * std::cos(angle));
    if (2 * b + 1 < end) values[2 * b + 1 - first] = static_cast<T>(radius * std::sin(angle));
  }
}

// values[i] = value first + i of the stream.
template <typename T>
void FillNormal(uint64_t key, double std, T* values, int64_t first, int64_t count) {
  const int64_t useful =
      std::max<int64_t>(count / (1 << 16), 1);  // a thread costs more than 64k values
  const int64_t threads =
      std::min<int64_t>(std::max(1U, std::thread::hardware_concurrency()), useful);
  const auto fill = [=](int64_t t) {
    const int64_t from = count * t / threads, to = count * (t + 1) / threads;
    FillRange(key, std, values + from, first + from, first + to);
  };
  std::vector<std::thread> workers;
  for (int64_t t = 1; t < threads; ++t) workers.emplace_back(fill, t);
  fill(0);
  for (std::thread& worker : workers) worker.join();
}

void FillNormal(uint64_t key, double std, const at::Tensor& part_N, int64_t first) {
  const int64_t count = part_N.numel();
  switch (part_N.scalar_type()) {
    case at::kDouble: return FillNormal(key, std, part_N.mutable_data_ptr<double>(), first, count);
    case at::kFloat: return FillNormal(key, std, part_N.mutable_data_ptr<float>(), first, count);
    case at::kBFloat16:
      return FillNormal(key, std, part_N.mutable_data_ptr<at::BFloat16>(), first, count);
    default: TORCH_CHECK(false, "parameters are fp32, fp64 or bf16");
  }
}

// part_N: elements from `begin` on of the flat slice; the values are those of the whole parameter.
void FillPart(uint64_t key, double std, const ParameterSlot& slot, int64_t begin,
              const at::Tensor& part_N) {
  const int64_t width = PartMatrixColumns(slot.shape, slot.slice);
  for (const PartRectangle& one :
       RectanglesOf(slot.shape, slot.slice, begin, begin + part_N.numel())) {
    for (int64_t row = 0; row < one.rows; ++row) {
      FillNormal(key, std, part_N.narrow(0, one.first - begin + row * one.columns, one.columns),
                 (one.row + row) * width + one.column);
    }
  }
}

}  // namespace

void InitializeParameters(ParameterStore& store, const ModelSpec& spec, uint64_t seed,
                          at::ScalarType dtype) {
  for (size_t i = 0; i < store.slots().size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    const ParameterSlot& slot = store.slot(index);
    if (!slot.present) continue;
    store.Allocate(index, dtype);
    const bool cut = store.cuts_parameters();
    const at::Tensor held = cut ? slot.piece : slot.local.view({-1});
    const ModelSpec::Init init = spec.init(slot.name);
    if (init.std == 0) {
      held.fill_(init.constant);
    } else {
      FillPart(PhiloxKey(seed, absl::StrCat("init/", slot.name)), init.std, slot,
               cut ? store.PieceBegin(index) : 0, held);
    }
  }
}

}  // namespace osler
