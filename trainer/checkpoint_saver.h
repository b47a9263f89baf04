// Saves checkpoints while training goes on.
//
// Save copies what this rank writes (staging) and returns; a thread of the rank then writes the
// copy, agrees with the other ranks', over a group of its own, that all files are durable, and the
// first rank's commits the checkpoint. One save is under way at a time: the next waits for it. The
// thread is of low priority. Whoever destroys a saver waits for its thread.
//
// All ranks make the same calls. What a save came to is the same status on all of them, but they
// may learn it at different times: Failed tells this rank's view, for ranks to share before they
// all call Settle.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "checkpoint/store.h"
#include "parallel/communicator.h"

namespace osler {

// kBlocking writes before Save returns, CPU tensors from where they lie, without a copy.
enum class SaveMode { kBackground, kBlocking };

class CheckpointSaver {
 public:
  // Collective. `store` and `world` must outlive it.
  CheckpointSaver(CheckpointStore& store, Communicator& world, SaveMode mode);
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;

  // Makes the memory of the copies now, so that the first save does not wait for it.
  void Reserve(const CheckpointState& state);
  // Collective. `state.texts` and `best` count on the first rank. Returns an error of this save
  // where it shows at once (no room on the disk: kResourceExhausted on every rank), else OK.
  // PRE: the save before was settled.
  absl::Status Save(int64_t step, CheckpointState state, std::optional<int64_t> best);
  // A save has ended with an error that Settle has not returned yet.
  bool Failed() const { return ended_.load(std::memory_order_acquire) && !outcome_.ok(); }
  // Waits for the save under way and returns what it came to, once; OK when there is none.
  // Collective in so far as every rank calls it after the same saves.
  absl::Status Settle();

 private:
  struct Task {
    int64_t step = 0;
    std::string temporary;
    CheckpointState state;
    std::optional<int64_t> best;
  };
  absl::Status Prepare(Task& task);
  absl::Status Write(const Task& task);
  at::Tensor* CopyOf(const StateEntry& entry);
  void Stage(CheckpointState& state);

  CheckpointStore& store_;
  Communicator& world_;
  const SaveMode mode_;
  const int64_t id_;  // the first rank's process: its directories are not those of dead ones
  std::unique_ptr<Communicator> group_;  // for the thread
  std::thread thread_;
  std::atomic<bool> ended_ = false;
  absl::Status outcome_;                      // written before ended_
  std::map<std::string, at::Tensor> staged_;  // by group and name; kept for the next save
};

// AgreeOnStatus to which a full disk (kResourceExhausted) is the least of failures.
absl::Status AgreeOnSave(Communicator& comm, const absl::Status& local);

}  // namespace osler
