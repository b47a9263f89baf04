// The training loop of one rank: data → walk → reduce → clip → AdamW → metrics → checkpoint.
//
//   OSLER_ASSIGN_OR_RETURN(const auto trainer, Trainer::Create(fs, config, mesh));
//   return trainer->Run();
//
// Loss and gradients are sums over the global batch's target tokens divided by their global count;
// how packs are split into micro-batches or ranks never enters. All ranks of the mesh make the same
// calls. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"
#include "configs/schema/train.pb.h"
#include "kernels/cuda/device.h"
#include "model/parameter_store.h"
#include "parallel/mesh.h"
#include "trainer/metrics.h"

namespace osler {

struct TrainerOptions {
  CudaDevice device = {};    // what computes: the CPU, unless a GPU was opened
  int64_t profile_step = 0;  // of which rank 0 writes RUN_DIR/log/trace.stepN.json; 0: none
};

class Trainer {
 public:
  // Loads model and data, claims the run directory and resumes from its newest good checkpoint, if
  // any. fs and mesh must outlive the trainer. Every rank returns the same status.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(Fs& fs, const config::Train& config,
                                                         Mesh& mesh,
                                                         const TrainerOptions& options = {});
  ~Trainer();

  // One optimizer step. A loss or gradient that is not finite is a data error naming the step and
  // its packs.
  absl::StatusOr<StepReport> Step();

  // Steps to train.steps with metrics, progress and checkpoints. StoppedError (75) after a stop
  // request was met with a durable checkpoint. Ends earlier, with a durable checkpoint, when
  // train.early_stop says so. OK at once when the run had finished before.
  absl::Status Run();

  int64_t step() const;  // finished steps
  const ParameterStore& parameters() const;

 private:
  struct State;
  explicit Trainer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace osler
