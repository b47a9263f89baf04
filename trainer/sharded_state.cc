#include "trainer/sharded_state.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <map>
#include <utility>

#include "base/status_macros.h"
#include "base/torch_status.h"
#include "model/parameter_part.h"

namespace osler {
namespace {

constexpr int64_t kDone = -1;  // in place of the number of the tensor that is asked for

void BroadcastNumber(Communicator& world, int64_t& number) {
  const at::Tensor x = at::full({1}, number, at::kLong);
  world.Broadcast(x, 0, "checkpoint").Wait();
  number = x.item<int64_t>();
}

}  // namespace

ShardedState::ShardedState(ParameterStore& store, AdamW& optimizer, Mesh& mesh)
    : store_(store),
      optimizer_(optimizer),
      mesh_(mesh),
      whole_(mesh.shape().size(Axis::kPipeline) * mesh.shape().size(Axis::kShard) *
                 mesh.shape().size(Axis::kTensor) ==
             1) {
  FindHolders();
  std::map<int64_t, const AdamW::Moments*> moments;
  for (const AdamW::Moments& one : optimizer.moments()) moments[one.slot] = &one;
  const at::ScalarType type = ParameterType();
  const bool wide = type == at::kBFloat16;
  const at::ScalarType state_type = wide ? at::kFloat : type;
  for (size_t i = 0; i < store.slots().size(); ++i) {
    AddSource("weights", "", static_cast<int64_t>(i), type, store.slots()[i].piece);
  }
  for (size_t i = 0; i < store.slots().size(); ++i) {
    const auto slot = static_cast<int64_t>(i);
    if (!store.slot(slot).trainable) continue;
    const auto found = moments.find(slot);
    const AdamW::Moments own = found == moments.end() ? AdamW::Moments{} : *found->second;
    if (wide) AddSource("optimizer", ".master", slot, state_type, own.master);
    AddSource("optimizer", ".exp_avg", slot, state_type, own.exp_avg);
    AddSource("optimizer", ".exp_avg_sq", slot, state_type, own.exp_avg_sq);
  }
}

void ShardedState::FindHolders() {
  Communicator& pipeline = mesh_.comm(Axis::kPipeline);
  std::vector<int64_t> stages_after;  // this one and those after it; 0: not here
  for (const ParameterSlot& slot : store_.slots()) {
    stages_after.push_back(slot.present ? pipeline.size() - pipeline.rank() : 0);
  }
  const at::Tensor most = at::tensor(stages_after, at::kLong);
  pipeline.AllReduce(most, ReduceOp::kMax, "stages of parameters").Wait();
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

void ShardedState::AddSource(const char* file, const std::string& suffix, int64_t slot,
                             at::ScalarType dtype, const at::Tensor& piece) {
  sources_.push_back({file, store_.slot(slot).name + suffix, slot, dtype, piece});
}

CheckpointState ShardedState::Entries() {
  CheckpointState state;
  for (size_t i = 0; i < sources_.size(); ++i) {
    const Source& source = sources_[i];
    const std::vector<int64_t>& shape = store_.slot(source.slot).shape;
    StateEntry entry{source.file, source.name, {}};
    if (whole_) {
      entry.tensor = source.piece.view(shape);
    } else {
      entry.parts = TensorParts{source.dtype, shape, [this, i] { return Assemble(i); },
                                [this, i](const at::Tensor& whole) { Take(sources_[i], whole); }};
    }
    state.tensors.push_back(std::move(entry));
  }
  return state;
}

void ShardedState::Take(const Source& source, const at::Tensor& whole) {
  if (!store_.slot(source.slot).present) return;
  if (source.piece.is_same(store_.slot(source.slot).piece)) {
    store_.TakeValue(source.slot, whole);
  } else {
    TakePart(whole, store_.slot(source.slot).slice, store_.PieceBegin(source.slot), source.piece);
  }
}

int ShardedState::RankAt(int stage, int shard, int tensor) const {
  const MeshShape& shape = mesh_.shape();
  const int replicas = stage * shape.size(Axis::kData);
  const int shards = replicas * shape.size(Axis::kShard) + shard;
  return shards * shape.size(Axis::kContext) * shape.size(Axis::kTensor) + tensor;
}

// Among ranks that hold the same part, the first along data, context and tensor.
std::vector<ShardedState::Owner> ShardedState::OwnersOf(int64_t slot) const {
  const StoreLayout& layout = store_.layout();
  const auto stage = static_cast<int>(holder_[static_cast<size_t>(slot)]);
  const int64_t count = store_.PieceCount(slot);
  const int copies = store_.slot(slot).slice.copies;
  std::vector<Owner> owners;
  for (int tensor = 0; tensor < layout.tensor_size; tensor += copies) {
    const TensorSlice slice = store_.SliceOf(slot, tensor);
    for (int shard = 0; shard < layout.shard_size; ++shard) {
      owners.push_back({RankAt(stage, shard, tensor), slice, shard * count, count});
    }
  }
  return owners;
}

// On the first rank.
at::Tensor ShardedState::Assemble(size_t index) {
  Communicator& world = mesh_.world();
  auto number = static_cast<int64_t>(index);
  BroadcastNumber(world, number);
  const Source& source = sources_[index];
  const at::Tensor whole = at::empty(store_.slot(source.slot).shape, source.dtype);
  for (const Owner& owner : OwnersOf(source.slot)) {
    at::Tensor part = source.piece;
    if (owner.rank != world.rank()) {
      part = at::empty({owner.count}, source.dtype);
      world.Receive(part, owner.rank, source.name).Wait();
    }
    PutPart(part, owner.slice, owner.begin, whole);
  }
  return whole;
}

void ShardedState::SendPart(size_t index) {
  const Source& source = sources_[index];
  for (const Owner& owner : OwnersOf(source.slot)) {
    if (owner.rank != mesh_.world().rank()) continue;
    mesh_.world().Send(source.piece, 0, source.name).Wait();
  }
}

void ShardedState::ServeFirst() {
  for (;;) {
    int64_t number = 0;
    BroadcastNumber(mesh_.world(), number);
    if (number == kDone) return;
    SendPart(static_cast<size_t>(number));
  }
}

absl::Status ShardedState::SaveOnFirst(absl::FunctionRef<absl::Status()> save) {
  Communicator& world = mesh_.world();
  absl::Status saved;
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    if (world.rank() > 0) {
      ServeFirst();
    } else {
      saved = save();
      int64_t done = kDone;
      BroadcastNumber(world, done);
    }
    return absl::OkStatus();
  }));
  return AgreeOnStatus(world, saved);
}

}  // namespace osler
