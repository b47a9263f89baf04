#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "trainer/plan/report.h"

namespace osler {
namespace {

using Json = nlohmann::ordered_json;

Json LayoutJson(const PlanLayout& layout) {
  return {{"name", NameOf(layout)},
          {"ranks", layout.ranks()},
          {"pipeline", layout.mesh.size(Axis::kPipeline)},
          {"data", layout.mesh.size(Axis::kData)},
          {"shard", layout.mesh.size(Axis::kShard)},
          {"context", layout.mesh.size(Axis::kContext)},
          {"tensor", layout.mesh.size(Axis::kTensor)},
          {"zero", static_cast<int>(layout.place.zero)},
          {"interleave", layout.place.chunks},
          {"recompute", NameOf(layout.recompute)}};
}

Json MemoryJson(const RankMemory& rank, std::string_view recompute, bool configured) {
  Json line{{"kind", "memory"},
            {"recompute", recompute},
            {"configured", configured},
            {"stage", rank.stage},
            {"total", rank.total()},
            {"process", kProcessBytes},
            {"tensors", rank.tensors()},
            {"at", rank.place},
            {"activations_of_a_micro_batch", rank.kept},
            {"micro_batches_in_flight", rank.in_flight}};
  Json peak, most;
  for (size_t u = 0; u < kUseNames.size(); ++u) {
    peak[std::string(kUseNames[u])] = rank.peak[u];
    most[std::string(kUseNames[u])] = rank.most[u];
  }
  line["peak"] = std::move(peak);
  line["most"] = std::move(most);
  return line;
}

Json TimeJson(const StepTime& time, double tokens) {
  return {{"seconds", time.total_s()},
          {"compute_s", time.compute_s},
          {"bubble_s", time.bubble_s},
          {"exchange_s", time.exchange_s},
          {"reduce_s", time.reduce_s},
          {"tokens_per_s", tokens / time.total_s()},
          {"bytes_sent",
           {{"pipeline", time.bytes[0]},
            {"data", time.bytes[1]},
            {"shard", time.bytes[2]},
            {"context", time.bytes[3]},
            {"tensor", time.bytes[4]}}}};
}

Json EpochJson(const PlanReport& report) {
  const PlanEpoch& epoch = report.epoch;
  Json line{{"kind", "epoch"},  {"records", nullptr},      {"packs", nullptr},  {"tokens", nullptr},
            {"steps", nullptr}, {"target_share", nullptr}, {"note", epoch.note}};
  if (epoch.records) line["records"] = *epoch.records;
  if (!epoch.packs) return line;
  line["packs"] = *epoch.packs;
  line["tokens"] = *epoch.tokens;
  line["target_share"] = epoch.target_share;
  line["steps"] =
      static_cast<double>(*epoch.packs) / static_cast<double>(report.batch.global_batch);
  return line;
}

Json CheckpointJson(const PlanReport& report) {
  const CheckpointPlan& plan = report.checkpoint;
  return {{"kind", "checkpoint"},
          {"bytes", plan.bytes()},
          {"weights", plan.weights},
          {"optimizer", plan.optimizer},
          {"save_s", plan.save_s},
          {"failure_every_s", plan.mtbf_s},
          {"interval_s", plan.interval_s},
          {"every_steps", std::max(1.0, std::round(plan.interval_s / report.time.total_s()))},
          {"lost_share", plan.lost}};
}

}  // namespace

std::string PlanJson(const PlanReport& report) {
  std::string lines;
  const auto add = [&](const Json& line) { lines += line.dump() + "\n"; };
  add({{"kind", "model"},
       {"family", report.family},
       {"precision", report.precision},
       {"parameters", report.parameters},
       {"trained", report.trained},
       {"layout", LayoutJson(report.layout)}});
  for (const auto& [recompute, ranks] : report.memory) {
    for (const RankMemory& rank : ranks)
      add(MemoryJson(rank, NameOf(recompute), recompute == report.layout.recompute));
  }
  const PlanFlops& flops = report.flops;
  add({{"kind", "flops"},
       {"forward", flops.forward()},
       {"matrices", flops.matrices},
       {"attention", flops.attention},
       {"head", flops.head},
       {"model", flops.model()},
       {"computed", flops.Computed(report.batch, report.layout.recompute)}});
  add(EpochJson(report));
  Json step{{"kind", "step"}};
  step.update(TimeJson(report.time, report.tokens_per_step()));
  add(step);
  add(CheckpointJson(report));
  if (!report.search.has_value()) return lines;
  const LayoutSearch& search = *report.search;
  Json found{{"kind", "search"},
             {"memory_limit", nullptr},
             {"tried", search.tried},
             {"fit", search.fitting.size()},
             {"too_large", search.too_large()},
             {"smallest", LayoutJson(search.smallest.layout)},
             {"smallest_memory", search.smallest.memory}};
  if (report.memory_limit) found["memory_limit"] = *report.memory_limit;
  add(found);
  for (size_t i = 0; i < std::min(kShownLayouts, search.fitting.size()); ++i) {
    const RankedLayout& one = search.fitting[i];
    Json line{{"kind", "layout"}, {"place", i + 1}, {"memory", one.memory}};
    line.update(LayoutJson(one.layout));
    line.update(TimeJson(one.time, report.tokens_per_step()));
    add(line);
  }
  return lines;
}

}  // namespace osler
