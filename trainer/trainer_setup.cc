#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "configs/config.h"
#include "kernels/cuda/interval_attention_cuda.h"
#include "parallel/small_values.h"
#include "trainer/plan/memory.h"
#include "trainer/restart_guard.h"
#include "trainer/run_layout.h"
#include "trainer/trainer_state.h"
#include "trainer/weights.h"

namespace osler {
namespace {

constexpr int kDataThreads = 2;  // reading and encoding keep far ahead of CPU training

// The first rank runs `body` alone, then the others: what it writes (sidecars) is there for them.
absl::Status FirstRankFirst(Communicator& world, absl::FunctionRef<absl::Status()> body) {
  absl::Status mine = world.rank() == 0 ? body() : absl::OkStatus();
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(world, mine));
  if (world.rank() != 0) mine = body();
  return AgreeOnStatus(world, mine);
}

// Runs `body` on the first rank only; every rank returns its status.
absl::Status OnFirstRank(Communicator& world, absl::FunctionRef<absl::Status()> body) {
  return AgreeOnStatus(world, world.rank() == 0 ? body() : absl::OkStatus());
}

std::vector<StreamSource> SourcesOf(
    const google::protobuf::RepeatedPtrField<config::DataSource>& sources) {
  std::vector<StreamSource> result;
  for (const auto& source : sources) result.push_back({source.path(), source.weight()});
  return result;
}

// Cutting off all that a record teaches is legal, and hardly ever meant.
absl::Status CheckTargets(const PlanCounts& counts, int64_t sequence_length) {
  if (counts.cut_off == 0) return absl::OkStatus();
  const std::string what = absl::StrCat(
      counts.cut_off, " records are longer than data.sequence_length ", sequence_length,
      " and lose all that they teach; raise it, or set data.long_records to split or drop");
  if (counts.taught == 0) return DataError(absl::StrCat("nothing to learn: all ", what));
  LogWarning("{}", what);
  return absl::OkStatus();
}

}  // namespace

absl::Status Trainer::State::OpenModelAndData() {
  const std::string& path = config.model().path();
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(mesh.world(), [&]() -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(spec, LoadModelSpec(fs, path));
    model = spec.build(store);
    OSLER_ASSIGN_OR_RETURN(groups, GroupParameters(config, store));
    PlaceOptions place = PlaceOptionsOf(config);
    place.device = device.device;
    OSLER_ASSIGN_OR_RETURN(stages, PlaceModel(spec, model, mesh, place, store));
    OSLER_RETURN_IF_ERROR(TestKernels());
    OSLER_ASSIGN_OR_RETURN(
        encoder, RecordEncoder::Create(fs, path, EncoderOptionsOf(config, spec.vocab_size)));
    return absl::OkStatus();
  }()));
  OSLER_RETURN_IF_ERROR(FirstRankFirst(mesh.world(), [&]() -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(
        data, DataSet::Open(fs, SourcesOf(config.data().train()), *encoder, kDataThreads));
    if (config.data().validation_size() > 0) {
      OSLER_ASSIGN_OR_RETURN(validation, Validation::Open(fs, config.data(), PlanOptionsOf(config),
                                                          *encoder, kDataThreads));
    }
    OSLER_ASSIGN_OR_RETURN(identity,
                           MakeRunIdentity(fs, config, data->digest(), encoder->digest()));
    return absl::OkStatus();
  }));
  return OnFirstRank(mesh.world(), [&]() -> absl::Status {
    OSLER_RETURN_IF_ERROR(ClaimRunDirectory(fs, config.train().output(), identity));
    OSLER_ASSIGN_OR_RETURN(lock, LockRunDirectory(config.train().output()));
    return absl::OkStatus();
  });
}

// A kernel that is wrong on this device must not train: better no run than a wrong one.
absl::Status Trainer::State::TestKernels() const {
  if (device.device.is_cpu()) return absl::OkStatus();
  const int tensor = mesh.comm(Axis::kTensor).size();
  const absl::Status right = CatchTorch([&] {
    for (const Model::LayerKind& kind : model.layer_kinds) {
      TestAttention({.heads = spec.heads / tensor,
                     .key_heads = std::max<int64_t>(spec.key_value_heads / tensor, 1),
                     .width = model.head_dim,
                     .dtype = DtypeOf(config.train().precision()),
                     .window = kind.window,
                     .device = device.device});
    }
    return absl::OkStatus();
  });
  return Reclassify(right, ExitCode::kDevice);
}

absl::Status Trainer::State::LoadParameters() {
  const config::Checkpoint& keeping = config.checkpoint();
  checkpoints = std::make_unique<CheckpointStore>(fs, RunFile("checkpoints"), keeping.keep(),
                                                  keeping.keep_every_steps());
  int64_t newest = -1;
  OSLER_RETURN_IF_ERROR(OnFirstRank(mesh.world(), [&]() -> absl::Status {
    OSLER_RETURN_IF_ERROR(checkpoints->CleanUp());
    OSLER_ASSIGN_OR_RETURN(const std::vector<int64_t> steps, checkpoints->Steps());
    if (!steps.empty()) newest = steps.back();
    return CheckRestarts(fs, config.train().output(), std::max<int64_t>(newest, 0), ToYaml(config),
                         keeping.most_restarts());
  }));
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    newest = BroadcastInt(mesh.world(), newest);
    return absl::OkStatus();
  }));

  const at::ScalarType dtype = DtypeOf(config.train().precision());
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(mesh.world(), CatchTorch([&]() -> absl::Status {
                                        if (newest < 0)
                                          return LoadWeights(fs, config.model().path(), spec, dtype,
                                                             store);
                                        for (size_t i = 0; i < store.slots().size(); ++i)
                                          store.Allocate(static_cast<int64_t>(i), dtype);
                                        return absl::OkStatus();
                                      })));
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    train_step = std::make_unique<TrainStep>(model, store, mesh, stages, StepOptionsOf(config),
                                             std::move(groups));
    sharded = std::make_unique<ShardedState>(store, train_step->optimizer(), mesh);
    saver = std::make_unique<CheckpointSaver>(
        *checkpoints, mesh.world(),
        config.checkpoint().async() ? SaveMode::kBackground : SaveMode::kBlocking);
    return absl::OkStatus();
  }));
  OSLER_RETURN_IF_ERROR(OnFirstRank(mesh.world(), [&] { return CheckRoom(); }));
  OSLER_RETURN_IF_ERROR(Resume());
  return AgreeOnStatus(mesh.world(), CatchTorch([&] {
                         if (StagedCopyOf(config) == StagedCopy::kKept && !Finished())
                           saver->Reserve(sharded->ToSave());
                         return absl::OkStatus();
                       }));
}

// Two checkpoints are on the disk before an older one goes.
absl::Status Trainer::State::CheckRoom() const {
  const int64_t one = CheckpointBytes(sharded->ToSave());
  const int64_t need = 2 * one + one / 5;
  const auto free = fs.FreeBytes(config.train().output());
  if (!free.ok() || *free >= need || Finished()) return absl::OkStatus();
  return CheckpointError(
      absl::StrCat(config.train().output(), " is on a disk with ", *free >> 20,
                   " MiB free; checkpoints of ", (one >> 20) + 1, " MiB want ", (need >> 20) + 1,
                   " MiB (two, and a tenth more): make room, or choose another train.output"));
}

absl::Status Trainer::State::OpenStream() {
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(mesh.world(), [&]() -> absl::Status {
    StreamOptions options;
    options.plan = PlanOptionsOf(config);
    options.share = ReaderOf(mesh);
    OSLER_ASSIGN_OR_RETURN(stream, PackStream::Open(*data, options));
    if (step > 0) OSLER_RETURN_IF_ERROR(stream->Seek(cursor));
    next_pack = cursor.pack;
    return absl::OkStatus();
  }()));
  return OnFirstRank(mesh.world(), [&]() -> absl::Status {
    const PlanCounts counts = stream->counts();
    LogInfo("{} training records, {} tokens; longer than {}: {} truncated, {} split, {} dropped",
            counts.records, counts.tokens, config.data().sequence_length(), counts.truncated,
            counts.split, counts.dropped);
    OSLER_RETURN_IF_ERROR(CheckTargets(counts, config.data().sequence_length()));
    int64_t trained = 0;
    for (const ParameterSlot& slot : store.slots())
      trained += slot.trainable ? c10::multiply_integers(slot.shape) : 0;
    if (trained < store.parameter_count()) {
      LogInfo("{} of {} parameters are trained", trained, store.parameter_count());
    }
    return Reclassify(WriteFileDurably(fs, RunFile(kConfigFile), ToYaml(config)),
                      ExitCode::kCheckpoint);
  });
}

absl::Status Trainer::State::OpenLog() {
  return OnFirstRank(mesh.world(), [&]() -> absl::Status {
    auto opened = RunLog::Open(fs, config, step);
    if (!opened.ok()) return Reclassify(opened.status(), ExitCode::kCheckpoint);
    log = *std::move(opened);
    return absl::OkStatus();
  });
}

absl::StatusOr<CheckpointState> Trainer::State::StateToSave() {
  CheckpointState state = sharded->ToSave();
  OSLER_ASSIGN_OR_RETURN(const Cursor here, stream->CursorAt(next_pack));
  const std::string measured = validation == nullptr ? "" : validation->digest();
  state.texts[kStateFile] = ProgressToJson({step, here, best.state(), measured}, identity);
  state.texts[kConfigFile] = ToYaml(config);
  return state;
}

absl::Status Trainer::State::Tolerate(const absl::Status& saved, int64_t of_step,
                                      FullDisk policy) const {
  if (!absl::IsResourceExhausted(saved) || policy == FullDisk::kFail) return saved;
  if (is_first()) {
    LogError("checkpoint of step {} failed, training goes on without it: {}", of_step,
             std::string(saved.message()));
  }
  return absl::OkStatus();
}

absl::Status Trainer::State::SettleCheckpoint(FullDisk policy) {
  failed_save_agreed = false;
  return Tolerate(saver->Settle(), saving_step, policy);
}

absl::Status Trainer::State::SaveCheckpoint(FullDisk policy) {
  OSLER_RETURN_IF_ERROR(SettleCheckpoint(FullDisk::kGoOn));
  absl::StatusOr<CheckpointState> state = StateToSave();
  absl::Status ready = state.status();
  if (ready.ok() && log != nullptr) ready = Reclassify(log->Sync(), ExitCode::kCheckpoint);
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(mesh.world(), ready));
  const bool marks_best = config.checkpoint().keep_best() && best.state().loss.has_value();
  saving_step = step;
  const absl::Status begun = saver->Save(
      step, *std::move(state), marks_best ? std::optional(best.state().step) : std::nullopt);
  if (!begun.ok() || config.checkpoint().async()) return Tolerate(begun, step, policy);
  return SettleCheckpoint(policy);
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(Fs& fs, const config::Train& config,
                                                         Mesh& mesh,
                                                         const TrainerOptions& options) {
  auto state = std::make_unique<State>(fs, config, mesh, options);
  OSLER_RETURN_IF_ERROR(state->OpenModelAndData());
  OSLER_RETURN_IF_ERROR(state->LoadParameters());
  OSLER_RETURN_IF_ERROR(state->OpenStream());
  return std::unique_ptr<Trainer>(new Trainer(std::move(state)));
}

Trainer::Trainer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Trainer::~Trainer() = default;
int64_t Trainer::step() const { return state_->step; }
const ParameterStore& Trainer::parameters() const { return state_->store; }

}  // namespace osler
