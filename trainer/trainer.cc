#include "trainer/trainer.h"

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/errors.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "trainer/plan/compute.h"
#include "trainer/schedule.h"
#include "trainer/stop_signal.h"
#include "trainer/trainer_state.h"

namespace osler {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

}  // namespace

absl::StatusOr<std::vector<Pack>> Trainer::State::NextPacks(int64_t end) {
  const ReaderShare reader = ReaderOf(mesh);
  std::vector<Pack> packs;
  for (int64_t g = next_pack; g < end; ++g) {
    if (g % reader.count != reader.index) continue;
    OSLER_ASSIGN_OR_RETURN(Pack pack, stream->Next());
    packs.push_back(std::move(pack));
  }
  return packs;
}

StepReport Trainer::State::NextReport() const {
  StepReport report;
  report.step = step + 1;
  report.lr = config.optimizer().lr() *
              LearningRateFactor(config.schedule(), report.step, config.train().steps());
  for (const config::ParameterGroup& group : config.optimizer().groups()) {
    report.group_lr.push_back(report.lr * group.lr_scale());
  }
  report.first_pack = next_pack;
  report.end_pack = next_pack + config.train().global_batch();
  return report;
}

absl::StatusOr<double> Trainer::State::ModelFlops(const std::vector<Pack>& packs) const {
  std::vector<int64_t> lengths;
  double tokens = 0, targets = 0;
  for (const Pack& pack : packs) {
    const auto end = static_cast<int64_t>(pack.tokens.size());
    for (size_t d = 0; d < pack.doc_starts.size(); ++d) {
      const int64_t next = d + 1 < pack.doc_starts.size() ? pack.doc_starts[d + 1] : end;
      lengths.push_back(next - pack.doc_starts[d]);
    }
    tokens += static_cast<double>(end);
    targets += static_cast<double>(CountTargets(pack));
  }
  OSLER_ASSIGN_OR_RETURN(const PlanFlops flops, FlopsOf(model, store, DocumentKeys(model, lengths),
                                                        tokens > 0 ? targets / tokens : 0));
  return tokens * flops.model();
}

void Trainer::State::MeasureSpeed(double wall_ms, StepReport& report) const {
  const double seconds = wall_ms / 1e3;
  report.tokens_per_s = static_cast<double>(report.tokens) / seconds;
  report.data_wait_share = report.data_wait_ms / wall_ms;
  const double rate = 1e6 * static_cast<double>(megaflops) / seconds / mesh.world().size();
  report.model_tflops = rate / 1e12;
  if (device.bf16_flops > 0) report.mfu = rate / device.bf16_flops;
  report.memory_mib = PeakMemoryMib();
  report.device_memory_mib = PeakDeviceBytes(device.device) >> 20;
}

absl::Status Trainer::State::CountTokens(const std::vector<Pack>& packs, StepReport& report) {
  BatchCounts own{.stop_requests = StopRequested() ? 1 : 0,
                  .failed_saves = saver->Failed() ? 1 : 0};
  for (const Pack& pack : packs) {
    own.targets += CountTargets(pack);
    own.tokens += static_cast<int64_t>(pack.tokens.size());
  }
  OSLER_ASSIGN_OR_RETURN(const double flops, ModelFlops(packs));
  own.megaflops = static_cast<int64_t>(flops / 1e6);
  return CatchTorch([&] {
    const BatchCounts all = SumCounts(mesh, own);
    megaflops = all.megaflops;
    report.target_tokens = all.targets;
    report.tokens = all.tokens;
    stop_agreed = all.stop_requests > 0;
    failed_save_agreed = all.failed_saves > 0;
    const double positions = static_cast<double>(config.train().global_batch()) *
                             static_cast<double>(config.data().sequence_length());
    report.padding_share = 1 - static_cast<double>(report.tokens) / positions;
    return absl::OkStatus();
  });
}

absl::Status Trainer::State::Train(const std::vector<Pack>& packs, StepReport& report) {
  const StepPlan plan{.number = report.step,
                      .lr = report.lr,
                      .packs = report.end_pack - report.first_pack,
                      .targets = report.target_tokens};
  OSLER_ASSIGN_OR_RETURN(const StepResult result, train_step->Run(packs, plan));
  report.loss = result.loss;
  report.grad_norm = result.grad_norm;
  if (result.updated) return absl::OkStatus();
  return DataError(absl::StrFormat(
      "step %d: loss %g, gradient norm %g over packs [%d, %d): not finite; no update was made. "
      "Lower optimizer.lr or optimizer.clip_norm, or look at these packs with `osler data inspect "
      "--order`",
      report.step, report.loss, report.grad_norm, report.first_pack, report.end_pack));
}

absl::StatusOr<StepReport> Trainer::Step() {
  State& s = *state_;
  const auto begin = Clock::now();
  StepReport report = s.NextReport();
  Failpoint("load");
  auto packs = s.NextPacks(report.end_pack);
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(s.mesh.world(), packs.status()));
  report.data_wait_ms = MillisecondsSince(begin);
  OSLER_RETURN_IF_ERROR(s.CountTokens(*packs, report));

  OSLER_RETURN_IF_ERROR(s.Train(*packs, report));
  s.step = report.step;
  s.next_pack = report.end_pack;
  s.MeasureSpeed(MillisecondsSince(begin), report);
  report.blocked_ms = std::exchange(s.blocked_ms, 0);
  return report;
}

bool Trainer::State::ValidatesNow() const {
  if (validation == nullptr) return false;
  const int64_t every = config.validation().every_steps() > 0 ? config.validation().every_steps()
                                                              : config.checkpoint().every_steps();
  return step == config.train().steps() || (every > 0 && step % every == 0);
}

std::string Trainer::State::HowItFinished() const {
  if (!best.ShouldStop()) return absl::StrCat(step, " steps");
  const BestLossState& state = best.state();
  const std::string lowest =
      state.loss.has_value() ? absl::StrFormat("%.6g at step %d", *state.loss, state.step) : "none";
  return absl::StrFormat(
      "stopped early at step %d of %d: validation did not improve in %d rounds "
      "(train.early_stop); the lowest loss is %s",
      step, config.train().steps(), state.stale_rounds, lowest);
}

absl::Status Trainer::State::AfterStep(StepReport& report, Progress& progress) {
  bool improved = false;
  if (ValidatesNow()) {
    OSLER_ASSIGN_OR_RETURN(report.validation, validation->Measure(*train_step, mesh));
    improved = best.Observe(step, report.validation->total);
    validation_note = absl::StrFormat(" · validation loss %.4f", report.validation->total);
  }
  progress.Update(step, absl::StrFormat("loss %.4f · %.0f tokens/s%s", report.loss,
                                        report.tokens_per_s, validation_note));
  report.eta_s = progress.SecondsLeft();
  if (log != nullptr) log->Append(report);

  const int64_t every = config.checkpoint().every_steps();
  const bool last = Finished() || stop_agreed;
  const bool due =
      (every > 0 && step % every == 0) || (improved && config.checkpoint().keep_best());
  if (failed_save_agreed) OSLER_RETURN_IF_ERROR(SettleCheckpoint(FullDisk::kGoOn));
  if (!last && !due) return absl::OkStatus();
  const auto begin = Clock::now();
  const FullDisk policy = last ? FullDisk::kFail : FullDisk::kGoOn;
  OSLER_RETURN_IF_ERROR(SaveCheckpoint(policy));
  if (last) OSLER_RETURN_IF_ERROR(SettleCheckpoint(policy));
  blocked_ms += MillisecondsSince(begin);
  return absl::OkStatus();
}

void Trainer::State::SaveTrace(StepTrace& trace) const {
  const std::string path = RunFile(absl::StrCat("log/trace.step", step, ".json"));
  const absl::Status saved = trace.Save(path);
  if (saved.ok()) {
    LogInfo("wrote {}", path);
  } else {
    LogWarning("{}: {}", path, std::string(saved.message()));
  }
}

absl::Status Trainer::Run() {
  State& s = *state_;
  const config::TrainLoop& train = s.config.train();
  if (s.Finished()) {
    LogInfo("nothing to do: {} has finished, {}", train.output(), s.HowItFinished());
    return absl::OkStatus();
  }
  OSLER_RETURN_IF_ERROR(s.OpenLog());
  Progress progress("training", train.steps(), "steps", s.step);
  if (!s.is_first()) progress.Silence();
  while (!s.Finished()) {
    std::optional<StepTrace> trace;
    if (s.is_first() && s.step + 1 == s.profile_step) trace.emplace(s.device.device);
    OSLER_ASSIGN_OR_RETURN(StepReport report, Step());
    if (trace.has_value()) s.SaveTrace(*trace);
    OSLER_RETURN_IF_ERROR(s.AfterStep(report, progress));
    if (s.stop_agreed && !s.Finished()) {
      return StoppedError(
          absl::StrCat("stopped on request at step ", s.step, " of ", train.steps(),
                       " with a durable checkpoint; run the same command to continue"));
    }
  }
  progress.Finish();
  if (s.best.ShouldStop()) LogInfo("{}", s.HowItFinished());
  return absl::OkStatus();
}

}  // namespace osler
