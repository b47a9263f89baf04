#include "trainer/residency.h"

#include <algorithm>

namespace osler {
namespace {

constexpr int64_t kMessageBytes = int64_t{32} << 20;  // of the gathers after an optimizer step

c10::StorageImpl& StorageOf(const ParameterSlot& slot) {
  return *slot.local.storage().unsafeGetStorageImpl();
}

}  // namespace

Residency::Residency(ParameterStore& store, Communicator& shard)
    : store_(store), shard_(shard), slots_(store.slots().size()) {
  for (Slot& one : slots_) one.in_memory = !store.cuts_parameters();
}

void Residency::Prefetch(std::span<const int64_t> slots) {
  std::vector<int64_t> missing;
  for (const int64_t index : slots) {
    slot(index).expected = true;
    if (slot(index).in_memory) continue;
    GiveMemory(index);
    missing.push_back(index);
  }
  Gather(missing);
}

void Residency::Acquire(std::span<const int64_t> slots) {
  Prefetch(slots);
  for (const int64_t index : slots) {
    Wait(slot(index));
    slot(index).expected = false;
    ++slot(index).uses;
  }
}

void Residency::Release(std::span<const int64_t> slots) {
  spare_.clear();
  for (const int64_t index : slots) {
    Slot& one = slot(index);
    TORCH_CHECK(one.uses > 0, store_.slot(index).name, " is released more often than acquired");
    if (--one.uses == 0 && !one.expected && store_.cuts_parameters()) TakeMemory(index);
  }
}

void Residency::PiecesChanged() {
  Settle();
  std::vector<int64_t> message;
  int64_t bytes = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    const ParameterSlot& parameter = store_.slot(index);
    TORCH_CHECK(slots_[i].uses == 0, parameter.name, " changes while it is in use");
    if (store_.cuts_parameters()) {
      if (slots_[i].in_memory) TakeMemory(index);
      continue;
    }
    if (!parameter.present || !parameter.trainable) continue;
    const auto size = static_cast<int64_t>(StorageOf(parameter).nbytes());
    if (!message.empty() && bytes + size > kMessageBytes) {
      Gather(message);
      message.clear();
      bytes = 0;
    }
    message.push_back(index);
    bytes += size;
  }
  Gather(message);
}

void Residency::Settle() {
  for (Slot& one : slots_) Wait(one);
}

// Works on data alone (variable_data): a write through the tensor itself would count as a change
// of what autograd saved.
void Residency::Gather(const std::vector<int64_t>& slots) {
  if (shard_.size() == 1 || slots.empty()) return;
  std::vector<at::Tensor> flats;
  for (const int64_t index : slots) {
    const ParameterSlot& parameter = store_.slot(index);
    flats.push_back(store_.Flat(index, parameter.local.variable_data()));
    if (store_.cuts_parameters()) {
      flats.back()
          .narrow(0, store_.PieceBegin(index), store_.PieceCount(index))
          .copy_(parameter.piece);
    }
  }
  const auto gathering =
      std::make_shared<Handle>(shard_.AllGather(std::move(flats), store_.slot(slots.front()).name));
  for (const int64_t index : slots) slot(index).gathering = gathering;
}

void Residency::Wait(Slot& slot) {
  if (slot.gathering == nullptr) return;
  slot.gathering->Wait();
  slot.gathering.reset();
}

void Residency::GiveMemory(int64_t index) {
  c10::StorageImpl& storage = StorageOf(store_.slot(index));
  const auto found = std::find_if(spare_.begin(), spare_.end(),
                                  [&](const auto& one) { return one.first == storage.nbytes(); });
  if (found != spare_.end()) {
    storage.set_data_ptr_noswap(std::move(found->second));
    spare_.erase(found);
  } else {
    spare_.clear();  // of other sizes: what is not used goes back first
    storage.set_data_ptr_noswap(storage.allocator()->allocate(storage.nbytes()));
  }
  slot(index).in_memory = true;
}

void Residency::TakeMemory(int64_t index) {
  Wait(slot(index));
  c10::StorageImpl& storage = StorageOf(store_.slot(index));
  spare_.emplace_back(storage.nbytes(),
                      storage.set_data_ptr(c10::DataPtr(nullptr, storage.device())));
  slot(index).in_memory = false;
  slot(index).expected = false;
}

}  // namespace osler
