// What a checkpoint of a run holds, and what makes two runs the same run.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_lock.h"
#include "base/fs.h"
#include "configs/schema/train.pb.h"
#include "data/plan.h"
#include "trainer/best_loss.h"

namespace osler {

// What must not change between a checkpoint and its continuation. Steps, rates, mesh, micro-batch,
// recompute, parameter groups, validation and checkpoint settings may.
struct RunIdentity {
  std::string model;     // SHA-256 of config.json and of every weight file's name, size and header
  std::string data;      // digest of the training sources and their weights
  std::string records;   // how records become tokens: digest of tokenizer, template and target
  std::string settings;  // the settings that define the sample stream and the arithmetic, as JSON
};

absl::StatusOr<RunIdentity> MakeRunIdentity(Fs& fs, const config::Train& config,
                                            const std::string& data_digest,
                                            const std::string& records_digest);

// Progress beside tensors: state.json of a checkpoint.
struct RunProgress {
  int64_t step = 0;  // finished optimizer steps
  Cursor cursor;     // of the next pack
  BestLossState best;
  std::string validation;  // Validation::digest() of what `best` was measured on
};

std::string ProgressToJson(const RunProgress& progress, const RunIdentity& identity);
// Checkpoint errors: unreadable, or of another run (says what differs and what to do).
absl::StatusOr<RunProgress> ProgressFromJson(const std::string& text, const RunIdentity& identity,
                                             const std::string& where);

// RUN_DIR/run.json holds the identity from the first start on: a directory of another run is
// refused before anything in it is touched. Writes it when absent.
absl::Status ClaimRunDirectory(Fs& fs, const std::string& run_directory,
                               const RunIdentity& identity);

// Keeps a second run out of the directory for as long as it is held. A checkpoint error names the
// process that has it. Waits a few seconds for ranks of a run that is just ending.
absl::StatusOr<FileLock> LockRunDirectory(const std::string& run_directory);

}  // namespace osler
