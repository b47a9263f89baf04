// The last collectives of one rank over all its groups, for last words: what it did, and what it
// waits in. A ring of 64 entries. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace osler {

class FlightRecorder {
 public:
  static constexpr size_t kCapacity = 64;

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

  // The finished one that started last; none yet, or none among the last 64: nullopt.
  std::optional<Entry> LastCompleted() const;
  // Started and not finished, oldest first.
  std::vector<Entry> Pending() const;
  // All that the ring holds, oldest first.
  std::vector<Entry> Entries() const;

 private:
  mutable std::mutex mutex_;
  std::array<Entry, kCapacity> ring_;
  uint64_t started_ = 0;  // entry n lies at (n − 1) % kCapacity
  std::string block_;
  double epoch_;
};

}  // namespace osler
