// A small open-addressing hash map from 64-bit keys to 64-bit values, for the inner loop of BPE:
// one cache line a look-up, no allocation after building. The key 2^64−1 is reserved. Not
// thread-safe while being built; const after.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace osler {

class FlatMap {
 public:
  static constexpr uint64_t kNone =
      ~uint64_t{0};  // Find's answer for an absent key; never a stored value

  FlatMap() : slots_(16, Slot{kNone, kNone}) {}

  void Reserve(size_t count) {
    size_t size = 16;
    while (size < 2 * count) size *= 2;
    if (size > slots_.size()) Rehash(size);
  }

  // Inserts or overwrites.
  void Set(uint64_t key, uint64_t value) {
    if (2 * (count_ + 1) > slots_.size()) Rehash(2 * slots_.size());
    Slot& slot = slots_[Probe(key)];
    count_ += slot.key == kNone;
    slot = Slot{key, value};
  }

  uint64_t Find(uint64_t key) const { return slots_[Probe(key)].value; }
  bool Contains(uint64_t key) const { return Find(key) != kNone; }
  size_t size() const { return count_; }

 private:
  struct Slot {
    uint64_t key, value;
  };

  size_t Probe(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    uint64_t hash = key * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
    size_t at = hash & mask;
    while (slots_[at].key != key && slots_[at].key != kNone) at = (at + 1) & mask;
    return at;
  }

  void Rehash(size_t size) {
    std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(size, Slot{kNone, kNone}));
    for (const Slot& slot : old) {
      if (slot.key != kNone) slots_[Probe(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t count_ = 0;
};

inline uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace osler
