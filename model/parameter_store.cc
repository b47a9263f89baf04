#include "model/parameter_store.h"

#include <ATen/ops/index_add.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "base/check.h"
#include "kernels/accumulate.h"

namespace osler {

int64_t ParameterStore::Declare(std::string name, std::vector<int64_t> shape) {
  const auto index = static_cast<int64_t>(slots_.size());
  const bool fresh = index_.emplace(name, index).second;
  OSLER_CHECK(fresh);
  slots_.push_back(
      {.name = std::move(name), .shape = std::move(shape), .local = {}, .gradient = {}});
  return index;
}

int64_t ParameterStore::Find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? -1 : found->second;
}

int64_t ParameterStore::parameter_count() const {
  int64_t count = 0;
  for (const ParameterSlot& slot : slots_) {
    int64_t elements = 1;
    for (const int64_t dim : slot.shape) elements *= dim;
    count += elements;
  }
  return count;
}

at::Tensor& ParameterStore::GradientOf(int64_t index) {
  ParameterSlot& slot = this->slot(index);
  if (!slot.gradient.defined()) {
    const at::ScalarType dtype =
        slot.local.scalar_type() == at::kBFloat16 ? at::kFloat : slot.local.scalar_type();
    slot.gradient = at::zeros(slot.shape, slot.local.options().dtype(dtype));
  }
  return slot.gradient;
}

void ParameterStore::AddGradient(int64_t index, const at::Tensor& gradient) {
  at::Tensor& sum = GradientOf(index);
  if (!gradient.is_sparse()) {
    Accumulate(sum, gradient);
    return;
  }
  // An embedding's gradient: a row for every token. Adding rows costs tokens × width; a dense one
  // would cost the whole vocabulary in time and memory.
  sum.index_add_(0, gradient._indices()[0], gradient._values().to(sum.scalar_type()));
}

void ParameterStore::ZeroGradients() {
  for (ParameterSlot& slot : slots_) {
    if (slot.gradient.defined()) slot.gradient.zero_();
  }
}

}  // namespace osler
