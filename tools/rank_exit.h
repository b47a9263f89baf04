// How one rank of a run ends, so that no rank waits for ever and each leaves its last words.
//
// RUN_DIR/log/exit.rankN.json says how rank N ended, whom a failure is blamed on and what the rank
// was doing (docs/faults.md). When the control plane speaks a verdict on another rank, the record
// is written at once, every wait of the communicators throws, and the process ends with exit code
// 4: by its main thread if that comes to Finish within a moment, else by itself.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "base/fs.h"
#include "parallel/world.h"

namespace osler {

class RankExit {
 public:
  // Watches from now on. `fs` and `world` must outlive it.
  RankExit(Fs& fs, World& world, std::string run_directory);
  ~RankExit();
  RankExit(const RankExit&) = delete;

  // The main thread's last call, or another's in place of it where it is held for ever. Returns
  // `status` after an orderly end: it is OK, or an error that all ranks agree on. After any other
  // failure of one rank among several this ends the process, without finalising MPI, so that a
  // launcher ends the rest.
  absl::Status Finish(const absl::Status& status);

 private:
  void OnVerdict(const Blame& blame);
  void Record(const absl::Status& status, const std::optional<Blame>& blame);
  // What this rank was doing: ", in all-reduce of … (layer 3 backward)"; empty if in no collective.
  std::string Doing() const;

  Fs& fs_;
  World& world_;
  const std::string log_directory_;
  std::mutex record_mutex_;  // one writer at a time; held by a process that ends itself
  std::mutex mutex_;
  std::condition_variable changed_;
  bool finishing_ = false;
};

}  // namespace osler
