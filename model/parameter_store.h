// Every parameter of a model by name: one store, no members of modules.
//
// Names are the Hugging Face text-model spelling ("model.layers.0.self_attn.q_proj.weight"). The
// order of slots is the order in which the model declared them; optimizer, checkpoint and export
// all walk the same list.
//
// What a rank holds of a parameter: its slice along the tensor axis (`local`), laid out flat,
// padded with zeros to a multiple of the shard axis and cut in equal parts, of which the rank owns
// one (its `piece`). Optimizer state, and what a checkpoint takes from a rank, are of pieces.
// Parameters of other pipeline stages have a name and a shape here and nothing else. With every
// axis 1 the piece is the whole parameter, flat, in the same memory.
//
// Not thread-safe; owned by the trainer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/placement.h"

namespace osler {

// What is cut along the shard axis (ZeRO, Rajbhandari et al. 2020): optimizer state; gradients too;
// parameters too.
enum class ZeroLevel { kOptimizer = 1, kGradients = 2, kParameters = 3 };

struct StoreLayout {
  PlacementRules placements;  // needed where tensor_size > 1
  int tensor_rank = 0, tensor_size = 1;
  int shard_rank = 0, shard_size = 1;
  ZeroLevel zero = ZeroLevel::kOptimizer;
  std::optional<std::vector<int64_t>> stage;  // the slots of this pipeline stage; absent: all
  at::Device device = at::kCPU;               // of values and gradients
};

// This rank's layout on a mesh, with all slots in its stage.
StoreLayout LayoutOf(const Mesh& mesh, const PlacementRules& placements, ZeroLevel zero);

struct ParameterSlot {
  std::string name;
  std::vector<int64_t> shape;  // of the whole parameter
  bool trainable = true;
  bool present = true;  // a parameter of this pipeline stage
  TensorSlice slice;    // what this rank of the tensor axis has of it

  // The slice in the compute dtype, contiguous; requires no grad. Where parameters are cut
  // (ZeRO 3) it has memory only while Residency holds it.
  at::Tensor local;
  // 1-D, this rank's part of the flat, padded slice; shares local's memory unless parameters are
  // cut.
  at::Tensor piece;

  // Sums of gradients: fp32 for bf16 values, else the value's dtype; undefined until first used.
  // `gradient` has local's shape and is undefined where gradients are cut; `gradient_piece` is
  // piece's counterpart. Across ranks see GradientReducer.
  at::Tensor gradient;
  at::Tensor gradient_piece;
};

class ParameterStore {
 public:
  // PRE: no slot of that name. Returns its index.
  int64_t Declare(std::string name, std::vector<int64_t> shape);
  ParameterSlot& slot(int64_t index) { return slots_[static_cast<size_t>(index)]; }
  const ParameterSlot& slot(int64_t index) const { return slots_[static_cast<size_t>(index)]; }
  // The index of a name, or -1.
  int64_t Find(const std::string& name) const;
  std::vector<ParameterSlot>& slots() { return slots_; }
  const std::vector<ParameterSlot>& slots() const { return slots_; }
  int64_t parameter_count() const;  // of the whole model

  // Says what this rank holds of every declared parameter. PRE: no values yet. Throws c10::Error
  // for a layout that CheckLayout refuses.
  void LayOut(StoreLayout layout);
  const StoreLayout& layout() const { return layout_; }
  bool cuts_gradients() const;   // pieces are less than the slices, from ZeRO 2 on
  bool cuts_parameters() const;  // from ZeRO 3 on

  // What a rank of the tensor axis holds of a parameter.
  TensorSlice SliceOf(int64_t index, int tensor_rank) const;
  std::vector<int64_t> LocalShape(int64_t index) const;
  int64_t LocalCount(int64_t index) const;
  // Every rank's piece has PieceCount elements; this rank's begin at element PieceBegin of the flat
  // slice. PieceCount · shard_size ≥ LocalCount.
  int64_t PieceCount(int64_t index) const;
  int64_t PieceBegin(int64_t index) const;
  // The flat, padded tensor of PieceCount · shard_size elements under `local` or `gradient`.
  at::Tensor Flat(int64_t index, const at::Tensor& local) const;

  // Makes `local` and `piece`, without values (padding is zero); local has no memory where
  // parameters are cut. Nothing for a slot that is not present.
  void Allocate(int64_t index, at::ScalarType dtype);
  // Copies what this rank holds out of the whole parameter (any float dtype). Reads only that much
  // of it.
  void TakeValue(int64_t index, const at::Tensor& whole);

  at::ScalarType GradientType(int64_t index) const;
  // AddGradientTo the slot's accumulator, made on first use. PRE: gradients are not cut.
  void AddGradient(int64_t index, const at::Tensor& gradient);
  // The accumulator, zero-filled on first use. PRE: gradients are not cut.
  at::Tensor& GradientOf(int64_t index);
  // gradient_piece, zero-filled on first use.
  at::Tensor& GradientPieceOf(int64_t index);
  // Zeroes every accumulator that exists.
  void ZeroGradients();

 private:
  std::vector<ParameterSlot> slots_;
  std::unordered_map<std::string, int64_t> index_;
  StoreLayout layout_;
};

// Adds `gradient` (sum's shape, any float dtype, dense or an embedding's sparse rows) to `sum`.
void AddGradientTo(at::Tensor& sum, const at::Tensor& gradient);

}  // namespace osler
