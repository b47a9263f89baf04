#include "trainer/plan/layouts.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "model/layout.h"

namespace osler {
namespace {

constexpr std::array<std::string_view, kAxes> kAxisNames{"pipeline", "data", "shard", "context",
                                                         "tensor"};
constexpr int64_t kLeastTokens = 64;  // of a context rank: rows are filled up to as many

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
      for (const RecomputeMode recompute :
           {RecomputeMode::kNone, RecomputeMode::kSelective, RecomputeMode::kFull})
        variants.push_back({mesh, {static_cast<ZeroLevel>(zero), chunk}, recompute});
    }
  }
  return variants;
}

bool IsFaster(const RankedLayout& a, const RankedLayout& b) {
  const double x = a.time.total_s(), y = b.time.total_s();
  return x != y ? x < y : a.memory < b.memory;
}

}  // namespace

absl::StatusOr<LayoutSearch> SearchLayouts(PlanSpace& space, const PlanFlops& flops,
                                           const PlanHardware& hardware, int ranks,
                                           int64_t memory) {
  std::vector<PlanLayout> layouts;
  ForEachMesh(ranks, [&](const MeshShape& mesh) {
    const int64_t tokens = space.batch().step.micro_batch * space.batch().sequence_length;
    if (tokens / mesh.size(Axis::kContext) < kLeastTokens && mesh.size(Axis::kContext) > 1) return;
    for (const PlanLayout& layout : VariantsOf(mesh, space.model().spec)) layouts.push_back(layout);
  });
  LayoutSearch search;
  for (const PlanLayout& layout : layouts) {
    OSLER_ASSIGN_OR_RETURN(const int64_t least, LeastMemory(space, layout));
    if (search.tried > 0 && least > std::max(memory, search.smallest.memory)) {
      ++search.tried;
      continue;
    }
    OSLER_ASSIGN_OR_RETURN(const auto rank_memory,
                           PredictMemory(space, layout, StageChoice::kWorst));
    RankedLayout one{layout, WorstRank(rank_memory).total(), {}};
    if (search.tried++ == 0 || one.memory < search.smallest.memory) search.smallest = one;
    if (one.memory > memory) continue;
    OSLER_ASSIGN_OR_RETURN(one.time, EstimateStep(space, layout, flops, hardware));
    search.fitting.push_back(one);
  }
  if (search.tried == 0) {
    return ConfigError(
        absl::StrCat("--gpus ", ranks, ": this model has no layout of so many ranks"));
  }
  std::stable_sort(search.fitting.begin(), search.fitting.end(), IsFaster);
  return search;
}

std::string NameOf(const PlanLayout& layout) {
  std::vector<std::string> parts;
  for (size_t a = 0; a < kAxes; ++a) {
    if (layout.mesh.sizes[a] > 1)
      parts.push_back(absl::StrCat(std::string(kAxisNames[a]), layout.mesh.sizes[a]));
  }
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
