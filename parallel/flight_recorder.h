// The last collectives of one rank over all its groups, for last words: what it did, and what it
// waits in. The last 64, and those before them from the oldest that is not finished on: a device
// is often given much more than that before it has done anything. Thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace osler {

class FlightRecorder {
 public:
  static constexpr size_t kCapacity = 64;
  static constexpr size_t kMostEntries = 4096;  // unfinished or not

  struct Entry {
    uint64_t number = 0;          // counts the rank's collectives from 1
    std::string group;            // the communicator's name: "tensor"
    std::string operation, what;  // "all-reduce", "model.layers.3.mlp.up_proj.weight"
    std::string block;            // the label set when it started: "layer 3 backward"
    int64_t bytes = 0;            // of its tensors on this rank
    bool finished = false;
    double seconds = 0;  // since the recorder was made: when it started
  };

  FlightRecorder();
  // Where the computation is; stamps the collectives that start from now on.
  void SetBlock(std::string_view label);
  std::string block() const;

  // Returns the entry's number, for Finish.
  uint64_t Start(std::string_view group, std::string_view operation, std::string_view what,
                 int64_t bytes);
  void Finish(uint64_t number);

  // The finished one that started last; none that is kept: nullopt.
  std::optional<Entry> LastCompleted() const;
  // Started and not finished, oldest first.
  std::vector<Entry> Pending() const;
  // All that is kept, oldest first.
  std::vector<Entry> Entries() const;

 private:
  mutable std::mutex mutex_;
  std::deque<Entry> entries_;  // numbered without gaps
  uint64_t started_ = 0;
  std::string block_;
  double epoch_;
};

}  // namespace osler
