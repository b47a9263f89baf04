// Checkpoints of a run: RUN_DIR/checkpoints/step-N, and `latest` and `best` beside them, which name
// one. docs/checkpoint.md is the format.
//
// A save is Begin on the first rank, which makes step-N.tmp-…, WriteRank on every rank, which
// writes that rank's files into it, checksummed and synced, and Commit on the first rank: texts and
// manifest.json are written, the directory renamed and its parent synced, `latest` and `best`
// moved, and only then retention applied. Only a finished checkpoint is ever named step-N. Load
// verifies the checksum of every file it reads; a damaged checkpoint is renamed step-N.bad with its
// reason beside it (step-N.bad.txt). Nothing is ever pickled: tensors are safetensors files, the
// rest is text.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/fs.h"
#include "checkpoint/manifest.h"
#include "parallel/tensor_part.h"

namespace osler {

struct StateEntry {
  std::string group;  // of safetensors files: "weights" or "optimizer"
  std::string name;
  // The whole tensor, contiguous, on the CPU; with `part`, that of it, 1-D, maybe with padding
  // after it, empty when the rank has nothing of it. Load copies into it.
  at::Tensor tensor;
  std::optional<TensorPart> part = std::nullopt;
  // Whether this rank writes it: of ranks that have the same part, one does.
  bool written = true;
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

// What a checkpoint of the state takes on disk, less headers and manifest: of all ranks, since
// every rank's state names every tensor.
int64_t CheckpointBytes(const CheckpointState& state);

// "step-12" → 12; nullopt for any other name ("step-012", "step-12.bad").
std::optional<int64_t> StepOfName(std::string_view name);

// One of the ranks that write a checkpoint.
struct RankOf {
  int rank = 0, size = 1;
};

// Every rank may load and write its files; the first alone does the rest. Methods that are const
// may be called from any thread while no other one is.
class CheckpointStore {
 public:
  // `keep` newest finished checkpoints stay after each save, the one that `best` names, and those
  // of steps that are multiples of `keep_every`; keep 0 keeps all.
  CheckpointStore(Fs& fs, std::string directory, int64_t keep, int64_t keep_every = 0);

  // Finished checkpoints, ascending steps; none when the directory does not exist.
  absl::StatusOr<std::vector<int64_t>> Steps() const;

  // Where a save of this step by the process `id` writes before it is finished.
  std::string TemporaryDirectory(int64_t step, int64_t id) const;
  // Makes that directory, empty, on a disk with room for `bytes`. Visits the failpoint staging.
  // Errors of a save are of class checkpoint (disk full: code kResourceExhausted).
  absl::Status Begin(const std::string& temporary, int64_t bytes);
  // Writes and syncs what this rank writes of the state's tensors, and returns it for the manifest.
  // Tensors go to disk from where they lie, without a copy. Visits the failpoint shard_write once,
  // when the first part is written.
  absl::StatusOr<std::vector<ManifestFile>> WriteRank(const std::string& temporary, RankOf rank,
                                                      const CheckpointState& state) const;
  // Finishes the checkpoint whose files all ranks have written. A step that exists already is
  // replaced. With `best`, the best checkpoint so far (this one or an earlier one), `best` moves
  // there. Visits the failpoints manifest, rename, latest, best (when it moves), retention, in this
  // order, once each. On error the temporary directory is removed and older checkpoints stay;
  // retention that fails is a warning: the checkpoint itself is durable by then.
  absl::Status Commit(const std::string& temporary, int64_t step, std::vector<ManifestFile> files,
                      const std::map<std::string, std::string>& texts,
                      std::optional<int64_t> best = std::nullopt);
  // Removes what a save that failed has written; CleanUp tries again at the next start.
  void Discard(const std::string& temporary);
  // All of it, for a state that one rank has whole.
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
  // Full verification of step-N: manifest, sizes, checksums. The error names the file; its code
  // tells damage (kDataLoss), a newer format (kUnimplemented), another run's (kFailedPrecondition:
  // Load only) and what could not be read just now (any other).
  absl::StatusOr<CheckpointReport> Verify(int64_t step) const;
  // The newest step that `use`, Load or Verify or a part of either on every rank, takes. Damaged
  // newer ones are quarantined with a warning that names step and file; ones that cannot be read
  // are passed over with a warning; any other error of `use` ends the search. nullopt when there is
  // no checkpoint at all; an error when all that exist (quarantined ones too) are damaged.
  absl::StatusOr<std::optional<int64_t>> NewestGood(
      absl::FunctionRef<absl::Status(int64_t step)> use);
  absl::StatusOr<std::optional<int64_t>> NewestGood();  // `use`: Verify
  // Copies into state.tensors (names, shapes and dtypes must match exactly, group by group; a group
  // of which state has no entry is not read) and fills state.texts with every text file. Parts need
  // not be those that ranks wrote. Checksums are verified before anything is copied: on error the
  // state is as it was. Codes of errors: Verify's.
  absl::Status Load(int64_t step, CheckpointState& state) const;
  // Removes leftovers of crashed saves (step-*.tmp-*, step-*.old-*), and puts back a checkpoint
  // whose replacement did not finish. Call once at the start of a run, on rank 0.
  absl::Status CleanUp();

  std::string StepDirectory(int64_t step) const;
  const std::string& directory() const { return directory_; }

 private:
  absl::Status WriteTexts(const std::string& temporary,
                          const std::map<std::string, std::string>& texts, Manifest& manifest);
  absl::Status Publish(const std::string& temporary, int64_t step);
  absl::Status MovePointer(std::string_view name, int64_t step);
  absl::Status MoveUnlessThere(std::string_view name, int64_t step);
  absl::StatusOr<std::optional<int64_t>> StepOfPointer(std::string_view name) const;
  absl::Status Retain(int64_t step);
  absl::Status PutBackReplaced();
  void Quarantine(int64_t step, const std::string& reason);

  Fs& fs_;
  std::string directory_;
  int64_t keep_, keep_every_;
};

}  // namespace osler
