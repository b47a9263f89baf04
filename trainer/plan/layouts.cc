#include "trainer/plan/layouts.h"

#include <algorithm>
#include <future>
#include <iterator>
#include <limits>
#include <string_view>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "model/layout.h"

namespace osler {
namespace {

constexpr int64_t kLeastTokens = 64;  // of a context rank: rows are filled up to as many
constexpr size_t kMostThreads = 16;

// Calls visit for every mesh of that many ranks.
void ForEachMesh(int ranks, absl::FunctionRef<void(const MeshShape&)> visit) {
  MeshShape mesh;
  const auto fill = [&](auto& self, size_t axis, int left) -> void {
    if (axis + 1 == kAxes) {
      mesh.sizes[axis] = left;
      visit(mesh);
      return;
    }
    for (int size = 1; size <= left; ++size) {
      if (left % size > 0) continue;
      mesh.sizes[axis] = size;
      self(self, axis + 1, left / size);
    }
  };
  fill(fill, 0, ranks);
}

// Those that differ in what is not the mesh.
std::vector<PlanLayout> VariantsOf(const MeshShape& mesh, const ModelSpec& spec) {
  std::vector<PlanLayout> variants;
  const int levels = mesh.size(Axis::kShard) > 1 ? 3 : 1;
  const int chunks = mesh.size(Axis::kPipeline) > 1 ? 2 : 1;
  for (int zero = 1; zero <= levels; ++zero) {
    for (int chunk = 1; chunk <= chunks; ++chunk) {
      if (!CheckLayout(spec, mesh, chunk).ok()) continue;
      variants.push_back({mesh, {static_cast<ZeroLevel>(zero), chunk}});
    }
  }
  return variants;
}

std::vector<PlanLayout> LayoutsOf(const ModelSpec& spec, const PlanBatch& batch, int ranks) {
  const int64_t tokens = batch.step.micro_batch * batch.sequence_length;
  std::vector<PlanLayout> layouts;
  ForEachMesh(ranks, [&](const MeshShape& mesh) {
    const int context = mesh.size(Axis::kContext);
    if (context > 1 && tokens / context < kLeastTokens) return;
    for (const PlanLayout& layout : VariantsOf(mesh, spec)) layouts.push_back(layout);
  });
  return layouts;
}

// With the least recomputation that fits into `memory`, and then with its time; else with the one
// that needs least. Those that surely need more than `most` are not rehearsed, and count as needing
// the most that there is.
absl::StatusOr<RankedLayout> Rank(PlanSpace& space, PlanLayout layout, const PlanFlops& flops,
                                  const PlanHardware& hardware, int64_t memory, int64_t most) {
  RankedLayout best{layout, std::numeric_limits<int64_t>::max(), {}};
  OSLER_ASSIGN_OR_RETURN(const int64_t least, LeastMemory(space, layout));
  if (least > most) return best;
  for (const RecomputeMode recompute : kRecomputeModes) {
    layout.recompute = recompute;
    OSLER_ASSIGN_OR_RETURN(const auto ranks, PredictMemory(space, layout, StageChoice::kWorst));
    const int64_t needed = WorstRank(ranks).total();
    if (needed < best.memory) best = {layout, needed, {}};
    if (best.memory > memory) continue;
    OSLER_ASSIGN_OR_RETURN(best.time, EstimateStep(space, layout, flops, hardware));
    break;
  }
  return best;
}

bool NeedsLess(const RankedLayout& a, const RankedLayout& b) { return a.memory < b.memory; }

bool IsFaster(const RankedLayout& a, const RankedLayout& b) {
  const double x = a.time.total_s(), y = b.time.total_s();
  return x != y ? x < y : a.memory < b.memory;
}

}  // namespace

absl::StatusOr<LayoutSearch> SearchLayouts(const PlanModel& model, const PlanBatch& batch,
                                           const PlanFlops& flops, const PlanHardware& hardware,
                                           int ranks, int64_t memory) {
  const std::vector<PlanLayout> layouts = LayoutsOf(model.spec, batch, ranks);
  if (layouts.empty()) {
    return ConfigError(
        absl::StrCat("--gpus ", ranks, ": this model has no layout of so many ranks"));
  }
  std::vector<RankedLayout> ranked(layouts.size());
  const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, kMostThreads);
  std::vector<std::future<absl::Status>> shares;
  for (size_t t = 0; t < threads; ++t) {
    shares.push_back(std::async(std::launch::async, [&, t]() -> absl::Status {
      PlanSpace space(model, batch);
      int64_t smallest = std::numeric_limits<int64_t>::max();
      for (size_t i = t; i < layouts.size(); i += threads) {
        OSLER_ASSIGN_OR_RETURN(ranked[i], Rank(space, layouts[i], flops, hardware, memory,
                                               std::max(memory, smallest)));
        smallest = std::min(smallest, ranked[i].memory);
      }
      return absl::OkStatus();
    }));
  }
  absl::Status status;
  for (auto& share : shares) status.Update(share.get());
  OSLER_RETURN_IF_ERROR(status);
  LayoutSearch search;
  search.tried = std::ssize(layouts);
  search.smallest = *std::min_element(ranked.begin(), ranked.end(), NeedsLess);
  std::copy_if(ranked.begin(), ranked.end(), std::back_inserter(search.fitting),
               [&](const RankedLayout& one) { return one.memory <= memory; });
  std::stable_sort(search.fitting.begin(), search.fitting.end(), IsFaster);
  return search;
}

std::string NameOf(const PlanLayout& layout) {
  std::vector<std::string> parts = NamesOf(layout.mesh);
  if (layout.mesh.size(Axis::kShard) > 1)
    parts.push_back(absl::StrCat("zero", static_cast<int>(layout.place.zero)));
  if (layout.place.chunks > 1) parts.push_back(absl::StrCat("interleave", layout.place.chunks));
  if (layout.recompute == RecomputeMode::kFull) parts.push_back("recompute");
  if (layout.recompute == RecomputeMode::kSelective) parts.push_back("selective");
  return parts.empty() ? "one rank" : absl::StrJoin(parts, ".");
}

std::vector<std::string> SettingsOf(const PlanLayout& layout) {
  std::vector<std::string> settings;
  for (size_t a = 0; a < kAxes; ++a)
    settings.push_back(
        absl::StrCat("mesh.", std::string(kAxisNames[a]), "=", layout.mesh.sizes[a]));
  settings.push_back(absl::StrCat("mesh.zero=", static_cast<int>(layout.place.zero)));
  settings.push_back(absl::StrCat("mesh.interleave=", layout.place.chunks));
  settings.push_back(absl::StrCat("train.recompute=", std::string(NameOf(layout.recompute))));
  return settings;
}

}  // namespace osler
