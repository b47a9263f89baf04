// Checkpoints of a run: RUN_DIR/checkpoints/step-N, RUN_DIR/checkpoints/latest. docs/checkpoint.md is the format.
//
// Save writes step-N.tmp-…: every file checksummed and synced, manifest.json last; then renames the directory, syncs the
// parent, moves `latest`, and only then applies retention. Only a finished checkpoint is ever named step-N. Load verifies
// every checksum; a damaged checkpoint is renamed step-N.bad with its reason beside it. Nothing is ever pickled: tensors
// are safetensors files, the rest is text.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"

namespace osler {

struct StateEntry {
  std::string file;  // which safetensors file of the checkpoint: "weights" or "optimizer"
  std::string name;
  at::Tensor tensor;  // contiguous, CPU. Load copies into it.
};

struct CheckpointState {
  std::vector<StateEntry> tensors;
  std::map<std::string, std::string> texts;  // file name → content: "cursor.json", "config.resolved.yaml", …
};

struct CheckpointReport {  // what Verify and inspect print
  int64_t step = 0, bytes = 0;
  std::vector<std::string> files;
};

// Used by one thread of one rank (rank 0 writes; every rank may load). Not thread-safe.
class CheckpointStore {
 public:
  // `keep` newest finished checkpoints stay after each save; 0 keeps all.
  CheckpointStore(Fs& fs, std::string directory, int64_t keep);

  // Finished checkpoints, ascending steps.
  absl::StatusOr<std::vector<int64_t>> Steps() const;
  // Visits the failpoints staging, shard_write, manifest, rename, latest, retention, in this order. Errors are of class
  // checkpoint (disk full: code kResourceExhausted); the temporary directory is removed and older checkpoints stay.
  absl::Status Save(int64_t step, const CheckpointState& state);
  // Full verification of step-N: manifest, sizes, checksums. The error names the file.
  absl::StatusOr<CheckpointReport> Verify(int64_t step) const;
  // The newest step that passes Verify. Damaged newer ones are quarantined with a warning that names step and file.
  // nullopt when there is none at all; an error when all that exist are damaged.
  absl::StatusOr<std::optional<int64_t>> NewestGood();
  // Copies into state.tensors (names, shapes and dtypes must match exactly) and fills state.texts with every text file.
  absl::Status Load(int64_t step, CheckpointState& state) const;
  // Removes leftovers of crashed saves (step-*.tmp-*). Call once at the start of a run, on rank 0.
  absl::Status CleanUp();

  std::string StepDirectory(int64_t step) const;
  const std::string& directory() const { return directory_; }

 private:
  Fs& fs_;
  std::string directory_;
  int64_t keep_;
};

}  // namespace osler
