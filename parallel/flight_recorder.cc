#include "parallel/flight_recorder.h"

#include <chrono>
#include <utility>

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
  // One that goes gives its strings' memory to the one that comes.
  Entry reused;
  while (entries_.size() >= kMostEntries ||
         (entries_.size() >= kCapacity && entries_.front().finished)) {
    reused = std::move(entries_.front());
    entries_.pop_front();
  }
  Entry& entry = entries_.emplace_back(std::move(reused));
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
  const uint64_t oldest = started_ - entries_.size() + 1;
  if (number >= oldest) entries_[number - oldest].finished = true;  // else it is forgotten
}

std::vector<FlightRecorder::Entry> FlightRecorder::Entries() const {
  const std::lock_guard lock(mutex_);
  return {entries_.begin(), entries_.end()};
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
