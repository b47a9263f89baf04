#include "trainer/stage_plan.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"

namespace osler {
namespace {

constexpr double kImpossible = std::numeric_limits<double>::infinity();

// Cuts items into `parts` non-empty runs. cost(first, last) is the cost of items [first, last); a
// plan's is the largest of its runs' costs (kMax) or their sum (kSum).
enum class Combine { kMax, kSum };
template <typename Cost>
std::vector<int64_t> CutInto(int64_t items, int parts, Combine combine, Cost cost) {
  const auto columns = static_cast<size_t>(items) + 1;
  // best[k][n]: the first n items in k runs; cut[k][n]: where the last of them begins.
  std::vector<std::vector<double>> best(static_cast<size_t>(parts) + 1,
                                        std::vector<double>(columns, kImpossible));
  std::vector<std::vector<int64_t>> cut(best.size(), std::vector<int64_t>(columns, 0));
  best[0][0] = 0;
  for (size_t k = 1; k < best.size(); ++k) {
    for (size_t n = k; n < columns; ++n) {
      for (size_t j = k - 1; j < n; ++j) {
        const double run = cost(j, n);
        const double whole =
            combine == Combine::kMax ? std::max(best[k - 1][j], run) : best[k - 1][j] + run;
        if (whole >= best[k][n]) continue;
        best[k][n] = whole;
        cut[k][n] = static_cast<int64_t>(j);
      }
    }
  }
  std::vector<int64_t> begins(best.size(), items);
  for (size_t k = best.size(); k-- > 1;) begins[k - 1] = cut[k][static_cast<size_t>(begins[k])];
  return begins;
}

}  // namespace

StagePlan::Range StagePlan::BlocksOf(int virtual_stage) const {
  const auto v = static_cast<size_t>(virtual_stage);
  return {begins[v], begins[v + 1]};
}

int StagePlan::StageOf(int64_t block) const {
  const auto after = std::upper_bound(begins.begin(), begins.end() - 1, block);
  return static_cast<int>(after - begins.begin()) - 1;
}

std::vector<int64_t> BlockCosts(const Model& model, const ParameterStore& store) {
  std::vector<int64_t> costs;
  for (const auto& block : model.blocks) {
    int64_t cost = 0;
    for (const int64_t slot : block->slots()) {
      const std::vector<int64_t>& shape = store.slot(slot).shape;
      if (shape.size() == 2 && !costs.empty()) cost += shape[0] * shape[1];
    }
    costs.push_back(cost);
  }
  return costs;
}

int64_t HeadCost(const Model& model, const ParameterStore& store) {
  const std::vector<int64_t>& shape = store.slot(model.head_slot).shape;
  return shape[0] * shape[1];
}

StagePlan PlanStages(std::span<const int64_t> block_costs, int64_t head_cost,
                     const PipelineShape& shape) {
  const auto blocks = static_cast<int64_t>(block_costs.size());
  OSLER_CHECK(shape.virtual_stages() <= blocks);
  std::vector<double> up_to(block_costs.size() + 1, 0);
  for (size_t i = 0; i < block_costs.size(); ++i)
    up_to[i + 1] = up_to[i] + static_cast<double>(block_costs[i]);
  up_to.back() += static_cast<double>(head_cost);

  const auto cost = [&](size_t first, size_t last) { return up_to[last] - up_to[first]; };
  const int parts = shape.virtual_stages();
  const auto fastest = CutInto(blocks, parts, Combine::kMax, cost);
  double limit = 0;
  for (size_t v = 0; v + 1 < fastest.size(); ++v) {
    limit =
        std::max(limit, cost(static_cast<size_t>(fastest[v]), static_cast<size_t>(fastest[v + 1])));
  }
  const auto even = [&](size_t first, size_t last) {
    const double run = cost(first, last);
    return run > limit ? kImpossible : run * run;
  };
  return StagePlan{shape, CutInto(blocks, parts, Combine::kSum, even)};
}

StagePlan WholeModel(const Model& model) {
  return {.shape = {}, .begins = {0, static_cast<int64_t>(model.blocks.size())}};
}

std::vector<int64_t> SlotsOfStage(const Model& model, const StagePlan& plan, int rank) {
  std::set<int64_t> slots;
  for (int chunk = 0; chunk < plan.shape.chunks; ++chunk) {
    const StagePlan::Range range = plan.BlocksOf(plan.VirtualStage(rank, chunk));
    for (int64_t b = range.begin; b < range.end; ++b) {
      const auto& used = model.blocks[static_cast<size_t>(b)]->slots();
      slots.insert(used.begin(), used.end());
    }
  }
  if (rank == plan.shape.stages - 1) slots.insert(model.head_slot);
  return {slots.begin(), slots.end()};
}

std::unique_ptr<Communicator> TiedGroup(const Model& model, Communicator& pipeline) {
  const auto& embedding = model.blocks.front()->slots();
  const bool tied =
      std::find(embedding.begin(), embedding.end(), model.head_slot) != embedding.end();
  if (!tied || pipeline.size() == 1) return nullptr;
  const bool end = pipeline.rank() == 0 || pipeline.rank() == pipeline.size() - 1;
  auto group = pipeline.Split(end ? 0 : 1, pipeline.rank(), "tied");
  return end ? std::move(group) : nullptr;
}

}  // namespace osler
