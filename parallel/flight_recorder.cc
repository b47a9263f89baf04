#include "parallel/flight_recorder.h"

#include <chrono>

namespace osler {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

FlightRecorder::FlightRecorder() : epoch_(Seconds()) {}

void FlightRecorder::SetBlock(std::string_view label) {
  const std::lock_guard lock(mutex_);
  block_.assign(label);  // keeps its memory: no allocation once the longest label was seen
}

std::string FlightRecorder::block() const {
  const std::lock_guard lock(mutex_);
  return block_;
}

uint64_t FlightRecorder::Start(std::string_view group, std::string_view operation,
                               std::string_view what, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  Entry& entry = ring_[started_ % kCapacity];
  entry.number = ++started_;
  entry.group.assign(group);
  entry.operation.assign(operation);
  entry.what.assign(what);
  entry.block = block_;
  entry.bytes = bytes;
  entry.finished = false;
  entry.seconds = Seconds() - epoch_;
  return entry.number;
}

void FlightRecorder::Finish(uint64_t number) {
  const std::lock_guard lock(mutex_);
  Entry& entry = ring_[(number - 1) % kCapacity];
  if (entry.number == number) entry.finished = true;  // else 64 others have started since
}

std::vector<FlightRecorder::Entry> FlightRecorder::Entries() const {
  const std::lock_guard lock(mutex_);
  std::vector<Entry> entries;
  const uint64_t first = started_ > kCapacity ? started_ - kCapacity : 0;
  for (uint64_t n = first; n < started_; ++n) entries.push_back(ring_[n % kCapacity]);
  return entries;
}

std::optional<FlightRecorder::Entry> FlightRecorder::LastCompleted() const {
  std::optional<Entry> last;
  for (Entry& entry : Entries()) {
    if (entry.finished) last = std::move(entry);
  }
  return last;
}

std::vector<FlightRecorder::Entry> FlightRecorder::Pending() const {
  std::vector<Entry> pending;
  for (Entry& entry : Entries()) {
    if (!entry.finished) pending.push_back(std::move(entry));
  }
  return pending;
}

}  // namespace osler
