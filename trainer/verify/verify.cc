#include "trainer/verify/verify.h"

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

  const VerifyProblem& problem_;
  Mesh& mesh_;
  ParameterStore store_;
  Model model_;
  std::unique_ptr<TrainStep> train_step_;
  StepPlan plan_;
};

StepOptions OptionsOf(const VerifyProblem& problem, const VerifyLayout& layout) {
  StepOptions options;
  options.recompute = layout.recompute ? RecomputeMode::kFull : RecomputeMode::kNone;
  options.clip_norm = problem.clip_norm;
  return options;
}

std::vector<ParameterGroup> OneGroup(const ParameterStore& store) {
  ParameterGroup group;
  for (size_t i = 0; i < store.slots().size(); ++i) group.slots.push_back(static_cast<int64_t>(i));
  return {group};
}

absl::StatusOr<std::unique_ptr<Replica>> Replica::Create(const VerifyProblem& problem,
                                                         const VerifyLayout& layout, Mesh& mesh) {
  std::unique_ptr<Replica> replica(new Replica(problem, mesh));
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(mesh.world(), CatchTorch([&] {
                                        ParameterStore& store = replica->store_;
                                        replica->model_ = problem.spec.build(store);
                                        for (ParameterSlot& slot : store.slots())
                                          slot.local = problem.parameters.at(slot.name).clone();
                                        replica->train_step_ = std::make_unique<TrainStep>(
                                            replica->model_, store, mesh,
                                            OptionsOf(problem, layout), OneGroup(store));
                                        return absl::OkStatus();
                                      })));
  return replica;
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

absl::Status Replica::Update(double grad_norm) { return train_step_->Update(plan_, grad_norm); }

// ‖ours − whole‖² of this rank's part, one element a slot; zero for what it has nothing of.
using PartOf = std::function<at::Tensor(const ParameterSlot&)>;
at::Tensor SquaredDifferences(const ParameterStore& store, const PartOf& part,
                              const std::map<std::string, at::Tensor>& wholes) {
  const auto count = static_cast<int64_t>(store.slots().size());
  at::Tensor squares = at::zeros({count}, at::kDouble);
  for (int64_t i = 0; i < count; ++i) {
    const ParameterSlot& slot = store.slot(i);
    const double norm = Norm(at::sub(part(slot), wholes.at(slot.name)));
    squares.mutable_data_ptr<double>()[i] = norm * norm;
  }
  return squares;
}

std::vector<Deviation> DeviationsOf(const ParameterStore& store, const at::Tensor& squares,
                                    const std::map<std::string, at::Tensor>& wholes,
                                    double smallest_norm, double limit) {
  std::vector<Deviation> result;
  for (size_t i = 0; i < store.slots().size(); ++i) {
    const std::string& name = store.slots()[i].name;
    const double norm = std::max(Norm(wholes.at(name)), smallest_norm);
    result.push_back({name, std::sqrt(squares.const_data_ptr<double>()[i]) / norm, limit});
  }
  return result;
}

Deviation Compare(const char* what, size_t step, double ours, double theirs) {
  return {absl::StrCat(what, " of step ", step + 1), std::abs(ours - theirs) / std::abs(theirs),
          kScalarLimit};
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
    if (step == 0) {
      for (const ParameterSlot& slot : replica->store().slots())
        reference.gradients.emplace(slot.name, slot.gradient.clone());
    }
    OSLER_RETURN_IF_ERROR(replica->Update(result.grad_norm));
  }
  for (const ParameterSlot& slot : replica->store().slots()) {
    reference.parameters.emplace(slot.name, slot.local.clone());
    if (Norm(reference.gradients.at(slot.name)) > 0) continue;
    return MakeError(ExitCode::kBug, absl::StrCat("the tiny model has no gradient for ", slot.name,
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
  at::Tensor gradients, parameters;
  double global_norm = 0;
  for (size_t step = 0; step < problem.steps.size(); ++step) {
    OSLER_ASSIGN_OR_RETURN(const StepResult ours, replica->ComputeGradients(step));
    result.losses.push_back(Compare("loss", step, ours.loss, reference.losses[step]));
    result.norms.push_back(Compare("norm", step, ours.grad_norm, reference.norms[step]));
    if (step == 0) {
      gradients = SquaredDifferences(
          replica->store(), [](const ParameterSlot& slot) { return slot.gradient; },
          reference.gradients);
    }
    OSLER_RETURN_IF_ERROR(replica->Update(ours.grad_norm));
  }
  parameters = SquaredDifferences(
      replica->store(), [](const ParameterSlot& slot) { return slot.local; }, reference.parameters);
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    world.AllReduce(gradients, ReduceOp::kSum);
    world.AllReduce(parameters, ReduceOp::kSum);
    return absl::OkStatus();
  }));
  global_norm = reference.norms[0];
  result.gradients = DeviationsOf(replica->store(), gradients, reference.gradients,
                                  kSmallestShare * global_norm, kGradientLimit);
  result.parameters =
      DeviationsOf(replica->store(), parameters, reference.parameters, 0, kParameterLimit);
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
  for (const absl::Status& status : statuses) OSLER_RETURN_IF_ERROR(status);
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
