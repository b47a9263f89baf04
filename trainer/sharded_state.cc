#include "trainer/sharded_state.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <functional>
#include <map>
#include <queue>
#include <utility>

#include "base/status_macros.h"
#include "parallel/tensor_part.h"

namespace osler {

std::vector<int64_t> DealWriters(const std::vector<int64_t>& bytes, int64_t ranks) {
  using Load = std::pair<int64_t, int64_t>;  // bytes, rank
  std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
  for (int64_t rank = 0; rank < ranks; ++rank) loads.emplace(0, rank);
  std::vector<int64_t> writers;
  for (const int64_t one : bytes) {
    const auto [load, rank] = loads.top();
    loads.pop();
    loads.emplace(load + one, rank);
    writers.push_back(rank);
  }
  return writers;
}

ShardedState::ShardedState(ParameterStore& store, AdamW& optimizer, Mesh& mesh)
    : store_(store), mesh_(mesh) {
  FindHolders();
  std::map<int64_t, const AdamW::Moments*> moments;
  for (const AdamW::Moments& one : optimizer.moments()) moments[one.slot] = &one;
  const at::ScalarType type = ParameterType();
  const bool wide = type == at::kBFloat16;
  const at::ScalarType state_type = wide ? at::kFloat : type;
  for (size_t i = 0; i < store.slots().size(); ++i) {
    AddSource("weights", "", static_cast<int64_t>(i), store.slots()[i].piece, type);
  }
  for (size_t i = 0; i < store.slots().size(); ++i) {
    const auto slot = static_cast<int64_t>(i);
    if (!store.slot(slot).trainable) continue;
    const auto found = moments.find(slot);
    const AdamW::Moments own = found == moments.end() ? AdamW::Moments{} : *found->second;
    if (wide) AddSource("optimizer", ".master", slot, own.master, state_type);
    AddSource("optimizer", ".exp_avg", slot, own.exp_avg, state_type);
    AddSource("optimizer", ".exp_avg_sq", slot, own.exp_avg_sq, state_type);
  }
}

void ShardedState::FindHolders() {
  Communicator& pipeline = mesh_.comm(Axis::kPipeline);
  std::vector<int64_t> stages_after;  // this one and those after it; 0: not here
  for (const ParameterSlot& slot : store_.slots()) {
    stages_after.push_back(slot.present ? pipeline.size() - pipeline.rank() : 0);
  }
  at::Tensor most = at::tensor(stages_after, at::kLong).to(store_.layout().device);
  pipeline.AllReduce(most, ReduceOp::kMax, "stages of parameters").Wait();
  most = most.cpu();
  for (size_t i = 0; i < store_.slots().size(); ++i) {
    holder_.push_back(pipeline.size() - most.const_data_ptr<int64_t>()[i]);
  }
}

at::ScalarType ShardedState::ParameterType() const {
  for (const ParameterSlot& slot : store_.slots()) {
    if (slot.piece.defined()) return slot.piece.scalar_type();
  }
  TORCH_CHECK(false, "a store without values has no state");
}

void ShardedState::AddSource(const char* group, const std::string& suffix, int64_t slot,
                             const at::Tensor& piece, at::ScalarType dtype) {
  sources_.push_back({group, store_.slot(slot).name + suffix, slot,
                      piece.defined() ? piece : at::empty({0}, dtype)});
}

StateEntry ShardedState::PieceOf(const Source& source) const {
  const ParameterSlot& slot = store_.slot(source.slot);
  StateEntry entry{source.group, source.name, source.piece,
                   TensorPart{slot.shape, slot.slice, 0, 0}};
  TensorPart& part = *entry.part;
  if (part.shape.empty()) part = WholeTensor(slot.shape);
  if (!slot.present) {
    part.count = 0;
    return entry;
  }
  const int64_t all = store_.LocalCount(source.slot);
  part.begin = std::min(store_.PieceBegin(source.slot), all);
  part.count = std::min(store_.PieceCount(source.slot), all - part.begin);
  return entry;
}

std::vector<int64_t> ShardedState::Writers() const {
  std::vector<int64_t> bytes;
  for (const Source& source : sources_)
    bytes.push_back(static_cast<int64_t>(source.piece.nbytes()));
  return DealWriters(bytes, mesh_.comm(Axis::kData).size() * mesh_.comm(Axis::kContext).size());
}

// Of neighbours on the tensor axis that have the same slice, the first.
bool ShardedState::SpeaksForCopies(int64_t slot) const {
  return mesh_.comm(Axis::kTensor).rank() % store_.slot(slot).slice.copies == 0;
}

CheckpointState ShardedState::ToSave() const {
  const Communicator& context = mesh_.comm(Axis::kContext);
  const int64_t own = mesh_.comm(Axis::kData).rank() * context.size() + context.rank();
  const int stage = mesh_.comm(Axis::kPipeline).rank();
  const std::vector<int64_t> writers = Writers();
  CheckpointState state;
  for (size_t i = 0; i < sources_.size(); ++i) {
    const int64_t slot = sources_[i].slot;
    state.tensors.push_back(PieceOf(sources_[i]));
    state.tensors.back().written =
        writers[i] == own && SpeaksForCopies(slot) && holder_[static_cast<size_t>(slot)] == stage;
  }
  return state;
}

CheckpointState ShardedState::ToLoad() const {
  CheckpointState state;
  for (const Source& source : sources_) {
    StateEntry entry = PieceOf(source);
    const ParameterSlot& slot = store_.slot(source.slot);
    if (slot.present && !store_.cuts_parameters() && source.piece.is_same(slot.piece)) {
      entry.tensor = slot.local.flatten();
      entry.part->begin = 0;
      entry.part->count = store_.LocalCount(source.slot);
    }
    state.tensors.push_back(std::move(entry));
  }
  return state;
}

absl::Status ShardedState::Load(const CheckpointStore& store, int64_t step,
                                CheckpointState& state) {
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // to the device, from the CPU
  for (StateEntry& entry : state.tensors) {
    if (entry.tensor.is_cpu()) continue;
    const at::Tensor on_cpu =
        at::empty(entry.tensor.sizes(), entry.tensor.options().device(at::kCPU));
    copies.emplace_back(std::exchange(entry.tensor, on_cpu), on_cpu);
  }
  OSLER_RETURN_IF_ERROR(store.Load(step, state));
  for (auto& [to, from] : copies) to.copy_(from);
  return absl::OkStatus();
}

}  // namespace osler
