#include "trainer/plan/reduce_memory.h"

#include <algorithm>
#include <utility>

namespace osler {

ReduceMemory::ReduceMemory(const SlotSizes& sizes, const std::vector<int64_t>& present,
                           const PlanLayout& layout, const PlanBatch& batch, int64_t tied_slot,
                           Ledger& ledger)
    : sizes_(sizes),
      layout_(layout),
      tied_slot_(tied_slot),
      gradient_bytes_(batch.sum_bytes()),
      sent_bytes_(batch.step.reduction == ReductionType::kBf16 ? 2 : batch.sum_bytes()),
      ledger_(ledger),
      done_(sizes.pieces.size()) {
  MakeBuckets(present);
}

int64_t ReduceMemory::GroupsOf(int64_t slot) const {
  int64_t groups = sizes_.copies[static_cast<size_t>(slot)] > 1 ? 1 : 0;
  if (slot == tied_slot_) ++groups;
  for (const Axis axis : {Axis::kContext, Axis::kData}) groups += layout_.mesh.size(axis) > 1;
  return groups;
}

void ReduceMemory::MakeBuckets(const std::vector<int64_t>& present) {
  std::map<std::pair<int, bool>, std::pair<Bucket, int64_t>> open;  // by groups; with its bytes
  for (size_t i = present.size(); i-- > 0;) {
    const int64_t slot = present[i];
    const auto at = static_cast<size_t>(slot);
    if (!sizes_.trained[at]) continue;
    auto& [bucket, bytes] = open[{sizes_.copies[at], slot == tied_slot_}];
    const int64_t size = sizes_.flat(slot) * sent_bytes_;
    if (bytes + size > ReduceOptions().bucket_bytes && !bucket.slots.empty()) {
      buckets_.push_back(std::exchange(bucket, {}));
      bytes = 0;
    }
    bucket.slots.push_back(slot);
    bucket.groups = GroupsOf(slot);
    bytes += size;
  }
  for (auto& [key, last] : open) buckets_.push_back(std::move(last.first));
  std::sort(buckets_.begin(), buckets_.end(),
            [](const Bucket& a, const Bucket& b) { return a.slots.back() > b.slots.back(); });
  for (Bucket& bucket : buckets_) SizeCopies(bucket);
}

// Copies are made where what travels is narrower than the sums, and to lay pieces side by side.
void ReduceMemory::SizeCopies(Bucket& bucket) const {
  const bool narrow = sent_bytes_ != gradient_bytes_;
  int64_t pieces = 0;
  for (const int64_t slot : bucket.slots)
    pieces += sizes_.pieces[static_cast<size_t>(slot)] * sent_bytes_;
  if (scatters() && narrow) bucket.scattered = pieces * sizes_.shard;
  if (bucket.groups > 0 && (narrow || bucket.slots.size() > 1)) bucket.joined = pieces;
}

bool ReduceMemory::Complete(const Bucket& bucket) const {
  return std::all_of(bucket.slots.begin(), bucket.slots.end(),
                     [&](int64_t slot) { return done_[static_cast<size_t>(slot)]; });
}

void ReduceMemory::Done(const std::vector<int64_t>& slots) {
  for (const int64_t slot : slots) done_[static_cast<size_t>(slot)] = true;
  while (launched_ < buckets_.size() && Complete(buckets_[launched_])) {
    while (settled_ < launched_ && buckets_[settled_].settled()) ++settled_;
    for (size_t i = settled_; i < launched_; ++i) {
      const bool has_more = buckets_[i].next < buckets_[i].groups;
      if (has_more || i + kBucketsInFlight <= launched_) Advance(buckets_[i]);
    }
    Launch(buckets_[launched_++]);
  }
}

void ReduceMemory::Launch(Bucket& bucket) {
  if (scatters()) {
    ledger_.Add(Use::kReduction, bucket.scattered);
  } else if (bucket.groups > 0) {
    StartSum(bucket);
  }
}

bool ReduceMemory::Advance(Bucket& bucket) {
  ledger_.Remove(Use::kReduction, std::exchange(bucket.scattered, 0));
  if (bucket.next < bucket.groups) {
    StartSum(bucket);
    return true;
  }
  if (std::exchange(bucket.holds_joined, false)) ledger_.Remove(Use::kReduction, bucket.joined);
  return false;
}

void ReduceMemory::StartSum(Bucket& bucket) {
  if (!std::exchange(bucket.holds_joined, true)) ledger_.Add(Use::kReduction, bucket.joined);
  ++bucket.next;
}

void ReduceMemory::Finish() {
  while (launched_ < buckets_.size()) Launch(buckets_[launched_++]);
  for (bool more = true; more;) {
    more = false;
    for (Bucket& bucket : buckets_) more = Advance(bucket) || more;
  }
}

}  // namespace osler
