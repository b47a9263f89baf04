#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "configs/config.h"
#include "parallel/small_values.h"
#include "trainer/trainer_state.h"

namespace osler {

absl::StatusOr<Resumed> Trainer::State::LoadCheckpoint(int64_t from) {
  CheckpointState state = sharded->ToLoad();
  OSLER_RETURN_IF_ERROR(ShardedState::Load(*checkpoints, from, state));
  train_step->optimizer().StateLoaded();
  const std::string where = JoinPath(checkpoints->StepDirectory(from), kStateFile);
  const auto text = state.texts.find(kStateFile);
  if (text == state.texts.end()) return CheckpointError(absl::StrCat(where, " is missing"));
  OSLER_ASSIGN_OR_RETURN(RunProgress progress, ProgressFromJson(text->second, identity, where));
  return Resumed{from, std::move(progress), std::move(state.texts[kConfigFile])};
}

// The first rank looks for it and tells the others which one to try, −1 when it is done. No rank
// reads what is of no use to it, and nothing is read only to be verified.
absl::StatusOr<Resumed> Trainer::State::LoadNewest() {
  Communicator& world = mesh.world();
  Resumed loaded;
  const auto load = [&](int64_t step) {
    return AgreeOnStatus(world, CatchTorch([&]() -> absl::Status {
                           OSLER_ASSIGN_OR_RETURN(loaded, LoadCheckpoint(step));
                           return absl::OkStatus();
                         }));
  };
  absl::Status found;
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    if (is_first()) {
      found = checkpoints->NewestGood([&](int64_t step) { return load(BroadcastInt(world, step)); })
                  .status();
      BroadcastInt(world, -1);
    } else {
      for (int64_t step = 0; (step = BroadcastInt(world, 0)) >= 0;) load(step).IgnoreError();
    }
    return absl::OkStatus();
  }));
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(world, found));
  return loaded;
}

absl::Status Trainer::State::Resume() {
  OSLER_ASSIGN_OR_RETURN(const Resumed resumed, LoadNewest());
  if (resumed.from < 0) return absl::OkStatus();
  step = resumed.progress.step;
  cursor = resumed.progress.cursor;
  if (is_first()) {
    if (const absl::Status moved = checkpoints->MoveLatest(resumed.from); !moved.ok()) {
      LogWarning("cannot move 'latest' to step-{}: {}", resumed.from, std::string(moved.message()));
    }
    LogInfo("resuming from step {} of {}", step, config.train().steps());
    if (!resumed.settings.empty() && resumed.settings != ToYaml(config)) {
      LogWarning(
          "settings differ from those of the checkpoint; the new ones apply from step {} on "
          "(the old ones are in {})",
          step + 1, JoinPath(checkpoints->StepDirectory(resumed.from), kConfigFile));
    }
  }
  ResumeBest(resumed.progress);
  return absl::OkStatus();
}

// Losses on other data say nothing about those to come. A save that died may not have moved `best`.
void Trainer::State::ResumeBest(const RunProgress& progress) {
  if (validation == nullptr) return;
  if (validation->digest() == progress.validation) {
    best = BestLoss(StopOptions(), progress.best);
  } else if (is_first() && !progress.validation.empty()) {
    LogWarning("data.validation holds other data than before: the best loss is sought anew");
  }
  if (!is_first() || !config.checkpoint().keep_best() || !best.state().loss.has_value()) return;
  if (const absl::Status moved = checkpoints->MoveBest(best.state().step); !moved.ok()) {
    LogWarning("{}", std::string(moved.message()));
  }
}

}  // namespace osler
