#include "trainer/verify/verify.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "parallel/local/run_ranks.h"
#include "parallel/mesh.h"
#include "parallel/tensor_part.h"
#include "trainer/place_model.h"
#include "trainer/step.h"

namespace osler {
namespace {

constexpr double kGradientLimit = 1e-10, kSmallestShare = 1e-6;  // of the global norm
constexpr double kParameterLimit = 1e-9;  // AdamW divides by gradients that are almost zero
constexpr double kScalarLimit = 1e-11;

double Norm(const at::Tensor& x) {
  return at::linalg_vector_norm(x, 2, {}, false, at::kDouble).item<double>();
}

// One rank's model and steps.
class Replica {
 public:
  static absl::StatusOr<std::unique_ptr<Replica>> Create(const VerifyProblem& problem,
                                                         const VerifyLayout& layout, Mesh& mesh);
  absl::StatusOr<StepResult> ComputeGradients(size_t step);
  absl::Status Update(double grad_norm);
  const ParameterStore& store() const { return store_; }

 private:
  Replica(const VerifyProblem& problem, Mesh& mesh) : problem_(problem), mesh_(mesh) {}
  absl::Status Place(const VerifyLayout& layout);

  const VerifyProblem& problem_;
  Mesh& mesh_;
  ParameterStore store_;
  Model model_;
  StagePlan stages_;
  std::unique_ptr<TrainStep> train_step_;
  StepPlan plan_;
};

StepOptions OptionsOf(const VerifyProblem& problem, const VerifyLayout& layout) {
  StepOptions options;
  options.walk.recompute = layout.recompute;
  options.context_method = layout.context_method;
  options.clip_norm = problem.clip_norm;
  return options;
}

int64_t SlotCount(const ParameterStore& store) {
  return static_cast<int64_t>(store.slots().size());
}

std::vector<ParameterGroup> OneGroup(const ParameterStore& store) {
  ParameterGroup group;
  for (int64_t i = 0; i < SlotCount(store); ++i) group.slots.push_back(i);
  return {group};
}

absl::StatusOr<std::unique_ptr<Replica>> Replica::Create(const VerifyProblem& problem,
                                                         const VerifyLayout& layout, Mesh& mesh) {
  std::unique_ptr<Replica> replica(new Replica(problem, mesh));
  OSLER_RETURN_IF_ERROR(
      AgreeOnStatus(mesh.world(), CatchTorch([&] { return replica->Place(layout); })));
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    replica->train_step_ =
        std::make_unique<TrainStep>(replica->model_, replica->store_, mesh, replica->stages_,
                                    OptionsOf(problem, layout), OneGroup(replica->store_));
    return absl::OkStatus();
  }));
  return replica;
}

absl::Status Replica::Place(const VerifyLayout& layout) {
  model_ = problem_.spec.build(store_);
  const PlaceOptions place{.zero = static_cast<ZeroLevel>(layout.zero),
                           .chunks = layout.interleave};
  OSLER_ASSIGN_OR_RETURN(stages_, PlaceModel(problem_.spec, model_, mesh_, place, store_));
  for (int64_t i = 0; i < SlotCount(store_); ++i) {
    if (!store_.slot(i).present) continue;
    store_.Allocate(i, at::kDouble);
    store_.TakeValue(i, problem_.parameters.at(store_.slot(i).name));
  }
  return absl::OkStatus();
}

absl::StatusOr<StepResult> Replica::ComputeGradients(size_t step) {
  const ReaderShare reader = ReaderOf(mesh_);
  const std::vector<Pack>& all = problem_.steps[step];
  std::vector<Pack> own;
  BatchCounts counts;
  for (size_t g = 0; g < all.size(); ++g) {
    if (static_cast<int64_t>(g) % reader.count != reader.index) continue;
    own.push_back(all[g]);
    counts.targets += CountTargets(all[g]);
  }
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    counts = SumCounts(mesh_, counts);
    return absl::OkStatus();
  }));
  plan_ = {.number = static_cast<int64_t>(step) + 1,
           .lr = problem_.lr,
           .packs = static_cast<int64_t>(all.size()),
           .targets = counts.targets};
  return train_step_->ComputeGradients(own, plan_);
}

absl::Status Replica::Update(double grad_norm) {
  OSLER_RETURN_IF_ERROR(train_step_->Update(plan_, grad_norm));
  return CatchTorch([&] {
    train_step_->Settle();
    return absl::OkStatus();
  });
}

using Wholes = std::map<std::string, at::Tensor>;
// What a rank holds of a slot: its piece of values or gradients.
using PieceOf = const at::Tensor& (*)(const ParameterSlot& slot);
const at::Tensor& ValuePiece(const ParameterSlot& slot) { return slot.piece; }
const at::Tensor& GradientPiece(const ParameterSlot& slot) { return slot.gradient_piece; }

// ‖piece − its part of the whole‖², one element a slot; zero for what this rank has nothing of.
at::Tensor SquaredDifferences(const ParameterStore& store, PieceOf piece_of, const Wholes& wholes) {
  at::Tensor squares = at::zeros({SlotCount(store)}, at::kDouble);
  for (int64_t i = 0; i < SlotCount(store); ++i) {
    const ParameterSlot& slot = store.slot(i);
    if (!slot.present) continue;
    at::Tensor wanted = at::zeros({store.PieceCount(i)}, at::kDouble);
    TakePart(wholes.at(slot.name), slot.slice, store.PieceBegin(i), wanted);
    const double norm = Norm(at::sub(piece_of(slot), wanted));
    squares.mutable_data_ptr<double>()[i] = norm * norm;
  }
  return squares;
}

// Of a rank that holds everything.
Wholes Assemble(const ParameterStore& store, PieceOf piece_of) {
  Wholes wholes;
  for (const ParameterSlot& slot : store.slots()) {
    at::Tensor whole = at::empty(slot.shape, at::kDouble);
    PutPart(piece_of(slot), slot.slice, 0, whole);
    wholes.emplace(slot.name, std::move(whole));
  }
  return wholes;
}

std::vector<Deviation> DeviationsOf(const ParameterStore& store, const at::Tensor& squares,
                                    const Wholes& wholes, double smallest_norm, double limit) {
  std::vector<Deviation> result;
  for (size_t i = 0; i < store.slots().size(); ++i) {
    const std::string& name = store.slots()[i].name;
    const double norm = std::max(Norm(wholes.at(name)), smallest_norm);
    result.push_back({name, std::sqrt(squares.const_data_ptr<double>()[i]) / norm, limit});
  }
  return result;
}

// What this rank has sent along each axis so far, one element an axis.
at::Tensor BytesSent(const Mesh& mesh) {
  at::Tensor bytes = at::zeros({kAxes}, at::kLong);
  for (int64_t a = 0; a < kAxes; ++a) {
    bytes.mutable_data_ptr<int64_t>()[a] = mesh.comm(static_cast<Axis>(a)).traffic().bytes_sent;
  }
  return bytes;
}

Deviation Compare(const char* what, size_t step, double ours, double theirs) {
  return {absl::StrCat(what, " of step ", step + 1), std::abs(ours - theirs) / std::abs(theirs),
          kScalarLimit};
}

// Ranks that waited for one that failed have a communication error: the cause is another's.
absl::Status CauseOf(const std::vector<absl::Status>& statuses) {
  absl::Status cause;
  for (const absl::Status& status : statuses) {
    if (status.ok()) continue;
    if (ExitCodeOf(status) != ExitCode::kDevice) return status;
    if (cause.ok()) cause = status;
  }
  return cause;
}

}  // namespace

absl::StatusOr<VerifyReference> ComputeVerifyReference(const VerifyProblem& problem) {
  const std::unique_ptr<Communicator> world = MakeSingleCommunicator();
  OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create(MeshShape(), *world));
  VerifyReference reference;
  OSLER_ASSIGN_OR_RETURN(const auto replica, Replica::Create(problem, VerifyLayout(), mesh));
  for (size_t step = 0; step < problem.steps.size(); ++step) {
    OSLER_ASSIGN_OR_RETURN(const StepResult result, replica->ComputeGradients(step));
    reference.losses.push_back(result.loss);
    reference.norms.push_back(result.grad_norm);
    if (step == 0) reference.gradients = Assemble(replica->store(), GradientPiece);
    OSLER_RETURN_IF_ERROR(replica->Update(result.grad_norm));
  }
  reference.parameters = Assemble(replica->store(), ValuePiece);
  for (const auto& [name, gradient] : reference.gradients) {
    if (Norm(gradient) > 0) continue;
    return MakeError(ExitCode::kBug, absl::StrCat("the tiny model has no gradient for ", name,
                                                  ": nothing can be verified of it"));
  }
  return reference;
}

absl::StatusOr<VerifyResult> VerifyOnRanks(const VerifyProblem& problem,
                                           const VerifyReference& reference,
                                           const VerifyLayout& layout, Communicator& world) {
  const auto begin = std::chrono::steady_clock::now();
  OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create(layout.shape, world));
  VerifyResult result;
  result.layout = layout;
  OSLER_ASSIGN_OR_RETURN(const auto replica, Replica::Create(problem, layout, mesh));
  const at::Tensor before = BytesSent(mesh);
  at::Tensor gradients, parameters, bytes;
  for (size_t step = 0; step < problem.steps.size(); ++step) {
    OSLER_ASSIGN_OR_RETURN(const StepResult ours, replica->ComputeGradients(step));
    result.losses.push_back(Compare("loss", step, ours.loss, reference.losses[step]));
    result.norms.push_back(Compare("norm", step, ours.grad_norm, reference.norms[step]));
    if (step == 0)
      gradients = SquaredDifferences(replica->store(), GradientPiece, reference.gradients);
    OSLER_RETURN_IF_ERROR(replica->Update(ours.grad_norm));
    if (step == 0) bytes = at::sub(BytesSent(mesh), before);
  }
  parameters = SquaredDifferences(replica->store(), ValuePiece, reference.parameters);
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    world.AllReduce(gradients, ReduceOp::kSum).Wait();
    world.AllReduce(parameters, ReduceOp::kSum).Wait();
    world.AllReduce(bytes, ReduceOp::kSum).Wait();
    return absl::OkStatus();
  }));
  result.gradients = DeviationsOf(replica->store(), gradients, reference.gradients,
                                  kSmallestShare * reference.norms[0], kGradientLimit);
  result.parameters =
      DeviationsOf(replica->store(), parameters, reference.parameters, 0, kParameterLimit);
  std::copy_n(bytes.const_data_ptr<int64_t>(), kAxes, result.bytes.begin());
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

absl::StatusOr<VerifyResult> VerifyOnThreads(const VerifyProblem& problem,
                                             const VerifyReference& reference,
                                             const VerifyLayout& layout) {
  VerifyResult result;
  const auto statuses = RunRanks(layout.ranks(), [&](Communicator& world) -> absl::Status {
    auto one = VerifyOnRanks(problem, reference, layout, world);
    if (!one.ok()) return one.status();
    if (world.rank() == 0) result = *std::move(one);
    return absl::OkStatus();
  });
  OSLER_RETURN_IF_ERROR(CauseOf(statuses));
  return result;
}

std::vector<std::string> VerifyResult::Failures() const {
  std::vector<std::pair<double, std::string>> bad;
  const auto collect = [&](const std::vector<Deviation>& all, const char* prefix) {
    for (const Deviation& one : all) {
      if (!one.ok()) bad.emplace_back(-one.relative, absl::StrCat(prefix, one.name));
    }
  };
  collect(gradients, "gradient of ");
  collect(parameters, "last value of ");
  collect(losses, "");
  collect(norms, "gradient ");
  std::stable_sort(bad.begin(), bad.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (auto& [relative, name] : bad) names.push_back(std::move(name));
  return names;
}

}  // namespace osler
