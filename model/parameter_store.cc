#include "model/parameter_store.h"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "kernels/accumulate.h"
#include "parallel/tensor_part.h"

namespace osler {
namespace {

int64_t Count(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

TensorSlice WholeSlice(const std::vector<int64_t>& shape) {
  return {.dim = 0, .begin = 0, .length = shape.at(0), .copies = 1};
}

}  // namespace

StoreLayout LayoutOf(const Mesh& mesh, const PlacementRules& placements, ZeroLevel zero) {
  const Communicator &tensor = mesh.comm(Axis::kTensor), &shard = mesh.comm(Axis::kShard);
  return {.placements = placements,
          .tensor_rank = tensor.rank(),
          .tensor_size = tensor.size(),
          .shard_rank = shard.rank(),
          .shard_size = shard.size(),
          .zero = zero,
          .stage = std::nullopt,
          .device = at::kCPU};
}

int64_t ParameterStore::Declare(std::string name, std::vector<int64_t> shape) {
  const auto index = static_cast<int64_t>(slots_.size());
  const bool fresh = index_.emplace(name, index).second;
  OSLER_CHECK(fresh);
  ParameterSlot slot;
  slot.name = std::move(name);
  slot.slice = WholeSlice(shape);
  slot.shape = std::move(shape);
  slots_.push_back(std::move(slot));
  return index;
}

int64_t ParameterStore::Find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? -1 : found->second;
}

int64_t ParameterStore::parameter_count() const {
  int64_t count = 0;
  for (const ParameterSlot& slot : slots_) count += Count(slot.shape);
  return count;
}

void ParameterStore::LayOut(StoreLayout layout) {
  layout_ = std::move(layout);
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].present = !layout_.stage.has_value();
    slots_[i].slice = SliceOf(static_cast<int64_t>(i), layout_.tensor_rank);
  }
  if (!layout_.stage.has_value()) return;
  for (const int64_t index : *layout_.stage) slot(index).present = true;
}

TensorSlice ParameterStore::SliceOf(int64_t index, int tensor_rank) const {
  const ParameterSlot& slot = this->slot(index);
  if (layout_.tensor_size == 1) return WholeSlice(slot.shape);
  const PlacementRule* rule = FindRule(layout_.placements, slot.name);
  TORCH_CHECK(rule != nullptr, "no placement rule speaks of ", slot.name);
  return SliceFor(*rule, slot.shape, tensor_rank, layout_.tensor_size);
}

bool ParameterStore::cuts_gradients() const {
  return layout_.shard_size > 1 && layout_.zero >= ZeroLevel::kGradients;
}

bool ParameterStore::cuts_parameters() const {
  return layout_.shard_size > 1 && layout_.zero >= ZeroLevel::kParameters;
}

std::vector<int64_t> ParameterStore::LocalShape(int64_t index) const {
  return SlicedShape(slot(index).shape, slot(index).slice);
}

int64_t ParameterStore::LocalCount(int64_t index) const { return Count(LocalShape(index)); }

int64_t ParameterStore::PieceCount(int64_t index) const {
  return (LocalCount(index) + layout_.shard_size - 1) / layout_.shard_size;
}

int64_t ParameterStore::PieceBegin(int64_t index) const {
  return PieceCount(index) * layout_.shard_rank;
}

at::Tensor ParameterStore::Flat(int64_t index, const at::Tensor& local) const {
  return at::as_strided(local, {PieceCount(index) * layout_.shard_size}, {1},
                        local.storage_offset());
}

void ParameterStore::Allocate(int64_t index, at::ScalarType dtype) {
  ParameterSlot& slot = this->slot(index);
  if (!slot.present) return;
  const int64_t count = LocalCount(index), piece = PieceCount(index);
  const at::Tensor flat =
      at::empty({piece * layout_.shard_size}, at::TensorOptions(layout_.device).dtype(dtype));
  slot.local = flat.narrow(0, 0, count).view(LocalShape(index));
  if (cuts_parameters()) {
    flat.storage().unsafeGetStorageImpl()->set_data_ptr({nullptr, flat.device()});
    slot.piece = at::zeros({piece}, flat.options());
  } else {
    flat.narrow(0, count, flat.numel() - count).zero_();
    slot.piece = flat.narrow(0, PieceBegin(index), piece);
  }
}

void ParameterStore::TakeValue(int64_t index, const at::Tensor& whole) {
  const ParameterSlot& slot = this->slot(index);
  if (cuts_parameters()) {
    TakePart(whole, slot.slice, PieceBegin(index), slot.piece);
  } else {
    slot.local.copy_(Narrow(whole, slot.slice));
  }
}

at::ScalarType ParameterStore::GradientType(int64_t index) const {
  const at::ScalarType type = slot(index).local.scalar_type();
  return type == at::kBFloat16 ? at::kFloat : type;
}

at::Tensor& ParameterStore::GradientOf(int64_t index) {
  ParameterSlot& slot = this->slot(index);
  if (!slot.gradient.defined()) {
    TORCH_CHECK(!cuts_gradients(), slot.name, " has its gradient in pieces only");
    const int64_t piece = PieceCount(index);
    const at::Tensor flat =
        at::zeros({piece * layout_.shard_size}, slot.local.options().dtype(GradientType(index)));
    slot.gradient = flat.narrow(0, 0, LocalCount(index)).view(LocalShape(index));
    slot.gradient_piece = flat.narrow(0, PieceBegin(index), piece);
  }
  return slot.gradient;
}

at::Tensor& ParameterStore::GradientPieceOf(int64_t index) {
  ParameterSlot& slot = this->slot(index);
  if (!cuts_gradients()) {
    GradientOf(index);
  } else if (!slot.gradient_piece.defined()) {
    slot.gradient_piece =
        at::zeros({PieceCount(index)}, slot.local.options().dtype(GradientType(index)));
  }
  return slot.gradient_piece;
}

void ParameterStore::AddGradient(int64_t index, const at::Tensor& gradient) {
  AddGradientTo(GradientOf(index), gradient);
}

void ParameterStore::ZeroGradients() {
  for (size_t i = 0; i < slots_.size(); ++i) {
    const ParameterSlot& slot = slots_[i];
    if (slot.gradient.defined()) {
      Flat(static_cast<int64_t>(i), slot.gradient).zero_();
    } else if (slot.gradient_piece.defined()) {
      slot.gradient_piece.zero_();
    }
  }
}

void AddGradientTo(at::Tensor& sum, const at::Tensor& gradient) {
  if (!gradient.is_sparse()) {
    Accumulate(sum, gradient);
    return;
  }
  // An embedding's gradient: a row for every token. Adding rows costs tokens × width; a dense one
  // would cost the whole vocabulary in time and memory.
  AddRows(sum, gradient._indices()[0], gradient._values());
}

}  // namespace osler
