// Checkpoints of a run: RUN_DIR/checkpoints/step-N, and `latest` and `best` beside them, which name
// one. docs/checkpoint.md is the format.
//
// Save writes step-N.tmp-…: every file checksummed and synced, manifest.json last; then renames the
// directory, syncs the parent, moves `latest` and `best`, and only then applies retention. Only a
// finished checkpoint is ever named step-N. Load verifies every checksum; a damaged checkpoint is
// renamed step-N.bad with its reason beside it (step-N.bad.txt). Nothing is ever pickled: tensors
// are safetensors files, the rest is text.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"

namespace osler {

// A tensor that no rank need have whole.
struct TensorParts {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  // Save: makes it, contiguous, on the CPU, when it is due to be written. It lives until the next
  // one is made. May throw c10::Error.
  std::function<at::Tensor()> whole;
  // Load: copies this rank's part out of a read-only view of the file. May throw c10::Error.
  std::function<void(const at::Tensor& whole)> take;
};

struct StateEntry {
  std::string file;  // which safetensors file of the checkpoint: "weights" or "optimizer"
  std::string name;
  at::Tensor tensor;                                // contiguous, CPU. Load copies into it.
  std::optional<TensorParts> parts = std::nullopt;  // in place of `tensor`
};

struct CheckpointState {
  std::vector<StateEntry> tensors;
  std::map<std::string, std::string>
      texts;  // file name → content: "cursor.json", "config.resolved.yaml", …
};

struct CheckpointReport {  // what Verify and inspect print
  int64_t step = 0, bytes = 0, tensors = 0;
  std::vector<std::string> files;  // manifest.json included
};

// "step-12" → 12; nullopt for any other name ("step-012", "step-12.bad").
std::optional<int64_t> StepOfName(std::string_view name);

// Used by one thread of one rank (rank 0 writes; every rank may load). Not thread-safe.
class CheckpointStore {
 public:
  // `keep` newest finished checkpoints stay after each save, and the one that `best` names; 0 keeps
  // all.
  CheckpointStore(Fs& fs, std::string directory, int64_t keep);

  // Finished checkpoints, ascending steps; none when the directory does not exist.
  absl::StatusOr<std::vector<int64_t>> Steps() const;
  // With `best`, the best checkpoint so far (this one or an earlier one), `best` moves there.
  // Visits the failpoints staging, shard_write, manifest, rename, latest, best (when it moves),
  // retention, in this order, once each. Errors are of class checkpoint (disk full: code
  // kResourceExhausted); the temporary directory is removed and older checkpoints stay. A step that
  // exists already is replaced. Tensors are written from where they lie, without a copy, those in
  // parts as each is made. Retention that fails is a warning: the checkpoint itself is durable by
  // then.
  absl::Status Save(int64_t step, const CheckpointState& state,
                    std::optional<int64_t> best = std::nullopt);
  // Makes `latest` name `step`, the newest good one: a crash may have come between a checkpoint and
  // its name there.
  absl::Status MoveLatest(int64_t step);
  // Makes `best` name `step`; does nothing when that is so already or there is no such checkpoint.
  absl::Status MoveBest(int64_t step);
  // The step that `best` names; nullopt when there is no `best`, a checkpoint error when it names
  // nothing that is there.
  absl::StatusOr<std::optional<int64_t>> Best() const;
  // Full verification of step-N: manifest, sizes, checksums. The error names the file.
  absl::StatusOr<CheckpointReport> Verify(int64_t step) const;
  // The newest step that passes Verify. Damaged newer ones are quarantined with a warning that
  // names step and file; ones that cannot be read are passed over with a warning. nullopt when
  // there is none at all; an error when all that exist (quarantined ones too) are damaged, and when
  // a newer Osler wrote the newest.
  absl::StatusOr<std::optional<int64_t>> NewestGood();
  // Copies into state.tensors (names, shapes and dtypes must match exactly, file by file; a file of
  // which state has no entry is not read) and fills state.texts with every text file. Checksums are
  // verified before anything is copied: on error the state is as it was.
  absl::Status Load(int64_t step, CheckpointState& state) const;
  // Removes leftovers of crashed saves (step-*.tmp-*, step-*.old-*), and puts back a checkpoint
  // whose replacement did not finish. Call once at the start of a run, on rank 0.
  absl::Status CleanUp();

  std::string StepDirectory(int64_t step) const;
  const std::string& directory() const { return directory_; }

 private:
  absl::Status Stage(const std::string& temporary, int64_t step, const CheckpointState& state);
  absl::Status Publish(const std::string& temporary, int64_t step);
  absl::Status MovePointer(std::string_view name, int64_t step);
  absl::Status MoveUnlessThere(std::string_view name, int64_t step);
  absl::StatusOr<std::optional<int64_t>> StepOfPointer(std::string_view name) const;
  absl::Status Retain(int64_t step);
  absl::Status PutBackReplaced();
  void Quarantine(int64_t step, const std::string& reason);

  Fs& fs_;
  std::string directory_;
  int64_t keep_;
};

}  // namespace osler
