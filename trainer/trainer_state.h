// What a Trainer holds; private to trainer.cc (the step and the loop), trainer_setup.cc (start,
// save) and trainer_resume.cc.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_lock.h"
#include "base/progress.h"
#include "checkpoint/store.h"
#include "data/encoder.h"
#include "data/loader.h"
#include "model/block.h"
#include "model/registry.h"
#include "trainer/best_loss.h"
#include "trainer/checkpoint_saver.h"
#include "trainer/parameter_groups.h"
#include "trainer/run_log.h"
#include "trainer/run_state.h"
#include "trainer/sharded_state.h"
#include "trainer/step.h"
#include "trainer/step_trace.h"
#include "trainer/trainer.h"
#include "trainer/validation.h"

namespace osler {

// Texts of a checkpoint; the second is in the run's directory, too.
inline constexpr char kStateFile[] = "state.json", kConfigFile[] = "config.resolved.yaml";

// What a checkpoint says besides its tensors.
struct Resumed {
  int64_t from = -1;  // its step
  RunProgress progress;
  std::string settings;  // that it was made with
};

// Every method is called by all ranks together and returns the same status on each.
struct Trainer::State {
  State(Fs& the_fs, const config::Train& the_config, Mesh& the_mesh, const TrainerOptions& options)
      : fs(the_fs),
        config(the_config),
        mesh(the_mesh),
        device(options.device),
        profile_step(options.profile_step),
        best(StopOptions()) {}

  absl::Status OpenModelAndData();
  absl::Status TestKernels() const;
  absl::Status LoadParameters();
  absl::Status CheckRoom() const;  // of the first rank
  // From the newest checkpoint that every rank can load; from step 0 when there is none.
  absl::Status Resume();
  absl::StatusOr<Resumed> LoadNewest();                  // `from` −1: there is none
  absl::StatusOr<Resumed> LoadCheckpoint(int64_t from);  // of one rank: no collective inside
  void ResumeBest(const RunProgress& progress);
  absl::Status OpenStream();
  absl::Status OpenLog();
  // A full disk does not end training, the next checkpoint may succeed; only a last one must.
  enum class FullDisk { kGoOn, kFail };
  // Starts a save; what the one before came to is settled first.
  absl::Status SaveCheckpoint(FullDisk policy);
  // Waits for the save under way.
  absl::Status SettleCheckpoint(FullDisk policy);
  absl::StatusOr<CheckpointState> StateToSave();
  absl::Status Tolerate(const absl::Status& saved, int64_t of_step, FullDisk policy) const;

  StepReport NextReport() const;  // what is known of a step before it begins
  absl::Status CountTokens(const std::vector<Pack>& packs, StepReport& report);
  // What the packs cost, by PlanFlops::model.
  absl::StatusOr<double> ModelFlops(const std::vector<Pack>& packs) const;
  void MeasureSpeed(double wall_ms, StepReport& report) const;
  void SaveTrace(StepTrace& trace) const;  // of the step just finished
  absl::StatusOr<std::vector<Pack>> NextPacks(int64_t end);
  absl::Status Train(const std::vector<Pack>& packs, StepReport& report);
  // Validation, metrics and checkpoint, where the finished step is due for them.
  absl::Status AfterStep(StepReport& report, Progress& progress);
  bool ValidatesNow() const;

  EarlyStopOptions StopOptions() const {
    const config::EarlyStop& stop = config.train().early_stop();
    return {stop.patience(), stop.min_delta()};
  }
  bool Finished() const { return step >= config.train().steps() || best.ShouldStop(); }
  // "12 steps" or why there are fewer.
  std::string HowItFinished() const;
  bool is_first() const { return mesh.world().rank() == 0; }
  std::string RunFile(std::string_view name) const {
    return JoinPath(config.train().output(), name);
  }

  Fs& fs;
  const config::Train config;
  Mesh& mesh;
  const CudaDevice device;
  const int64_t profile_step;

  std::optional<FileLock> lock;  // of the run directory; on the first rank
  ModelSpec spec;
  ParameterStore store;
  Model model;
  StagePlan stages;
  std::unique_ptr<RecordEncoder> encoder;
  std::unique_ptr<DataSet> data;
  std::unique_ptr<Validation> validation;  // null without data.validation
  std::unique_ptr<PackStream> stream;
  std::vector<ParameterGroup> groups;
  std::unique_ptr<TrainStep> train_step;
  std::unique_ptr<ShardedState> sharded;  // of store and train_step's optimizer
  std::unique_ptr<CheckpointStore> checkpoints;
  std::unique_ptr<CheckpointSaver> saver;  // into checkpoints
  int64_t saving_step = 0;                 // of the save under way
  std::unique_ptr<RunLog> log;             // on the first rank only
  RunIdentity identity;
  Cursor cursor;  // where this start began

  BestLoss best;
  int64_t step = 0;       // finished
  int64_t megaflops = 0;  // of the step under way, all ranks together
  int64_t next_pack = 0;  // global number
  double blocked_ms = 0;  // by checkpoints since the last metrics line
  bool stop_agreed = false;
  bool failed_save_agreed = false;
  std::string validation_note;  // for the progress bar
};

}  // namespace osler
