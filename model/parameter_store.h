// Every parameter of a model by name: one store, no members of modules.
//
// Names are the Hugging Face text-model spelling ("model.layers.0.self_attn.q_proj.weight"). The
// order of slots is the order in which the model declared them; optimizer, checkpoint and export
// all walk the same list. Not thread-safe; owned by the trainer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace osler {

struct ParameterSlot {
  std::string name;
  std::vector<int64_t> shape;
  bool trainable = true;
  at::Tensor local;     // the value in the compute dtype; requires no grad
  at::Tensor gradient;  // accumulator (fp32 for bf16 values, else the value's dtype); undefined
                        // until first used
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
  int64_t parameter_count() const;

  // Adds `gradient` (any float dtype) into the slot's accumulator, making it on first use.
  void AddGradient(int64_t index, const at::Tensor& gradient);
  // The accumulator, zero-filled on first use.
  at::Tensor& GradientOf(int64_t index);
  // Zeroes every accumulator that exists.
  void ZeroGradients();

 private:
  std::vector<ParameterSlot> slots_;
  std::unordered_map<std::string, int64_t> index_;
};

}  // namespace osler
