#include "trainer/plan/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace osler {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

std::string Count(double value) {
  for (const auto& [unit, size] : {std::pair{"T", 1e12}, {"B", 1e9}, {"M", 1e6}, {"k", 1e3}}) {
    if (value >= size) return fmt::format("{:.3g} {}", value / size, unit);
  }
  return fmt::format("{:.0f}", value);
}

std::string Duration(double seconds) {
  if (seconds < 120) return fmt::format("{:.3g} s", seconds);
  if (seconds < 7200) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

std::string MemoryTable(const PlanReport& report) {
  std::string text = fmt::format("{:<9} {:>5}", "recompute", "stage");
  for (const std::string_view name : kUseNames) text += fmt::format(" {:>11}", name);
  text += fmt::format(" {:>7} {:>7}  at\n", "process", "total");
  for (const auto& [recompute, ranks] : report.memory) {
    for (const RankMemory& rank : ranks) {
      text += fmt::format("{:<9} {:>5}", NameOf(recompute), rank.stage);
      for (const int64_t bytes : rank.peak)
        text += fmt::format(" {:>11.3f}", static_cast<double>(bytes) / kGib);
      text += fmt::format(" {:>7.3f} {:>7.3f}  {}{}\n", kProcessBytes / kGib,
                          static_cast<double>(rank.total()) / kGib, rank.place,
                          recompute == report.layout.recompute ? " *" : "");
    }
  }
  return "memory of a rank in GiB, at the moment when it is most (* as configured)\n" + text;
}

std::string EpochText(const PlanReport& report) {
  const PlanEpoch& epoch = report.epoch;
  std::string text = "an epoch: ";
  text += epoch.records ? fmt::format("{} records", *epoch.records) : "records unknown";
  if (epoch.packs.has_value()) {
    const double steps =
        static_cast<double>(*epoch.packs) / static_cast<double>(report.batch.global_batch);
    text += fmt::format(", {} tokens, {} packs, {:.1f} steps; train.steps {} is {:.2f} epochs",
                        *epoch.tokens, *epoch.packs, steps, report.steps,
                        static_cast<double>(report.steps) / steps);
  } else {
    text += ", tokens unknown";
  }
  return text + (epoch.note.empty() ? "\n" : fmt::format(" ({})\n", epoch.note));
}

std::string StepText(const PlanReport& report) {
  const StepTime& time = report.time;
  return fmt::format(
      "a step: {} = work {} + bubble {} + exchanges {} + reductions {}; {} tokens/s\n",
      Duration(time.total_s()), Duration(time.compute_s), Duration(time.bubble_s),
      Duration(time.exchange_s), Duration(time.reduce_s),
      Count(report.tokens_per_step() / time.total_s()));
}

std::string CheckpointText(const PlanReport& report) {
  const CheckpointPlan& plan = report.checkpoint;
  return fmt::format(
      "a checkpoint: {} (weights {}, optimizer {}), {} to save; one every {} (checkpoint."
      "every_steps {:.0f}) loses least: {:.2g} % of the time, with a failure every {}\n",
      BytesText(static_cast<double>(plan.bytes())), BytesText(static_cast<double>(plan.weights)),
      BytesText(static_cast<double>(plan.optimizer)), Duration(plan.save_s),
      Duration(plan.interval_s), std::max(1.0, plan.interval_s / report.time.total_s()),
      100 * plan.lost, Duration(plan.mtbf_s));
}

std::string SearchText(const PlanReport& report) {
  const LayoutSearch& search = *report.search;
  const std::string limit =
      report.memory_limit
          ? " with " + BytesText(static_cast<double>(*report.memory_limit)) + " each"
          : "";
  std::string text =
      fmt::format("layouts of {} ranks{}: {} fit, {} do not\n", search.smallest.layout.ranks(),
                  limit, search.fitting.size(), search.too_large());
  if (search.fitting.empty()) return text;
  text += fmt::format("{:<52} {:>10} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7}\n", "layout", "memory",
                      "step", "tokens/s", "work", "bubble", "exch.", "reduce");
  for (size_t i = 0; i < std::min(kShownLayouts, search.fitting.size()); ++i) {
    const RankedLayout& one = search.fitting[i];
    const double total = one.time.total_s();
    text += fmt::format("{:<52} {:>10} {:>9} {:>9} {:>5.1f} % {:>5.1f} % {:>5.1f} % {:>5.1f} %\n",
                        NameOf(one.layout), BytesText(static_cast<double>(one.memory)),
                        Duration(total), Count(report.tokens_per_step() / total),
                        100 * one.time.compute_s / total, 100 * one.time.bubble_s / total,
                        100 * one.time.exchange_s / total, 100 * one.time.reduce_s / total);
  }
  text += "the first, as flags of osler train:";
  for (const std::string& setting : SettingsOf(search.fitting.front().layout))
    text += " --set " + setting;
  return text + "\n";
}

}  // namespace

double PlanReport::tokens_per_step() const {
  const auto packs = static_cast<double>(batch.global_batch);
  if (!epoch.packs.has_value()) return packs * static_cast<double>(batch.sequence_length);
  return packs * static_cast<double>(*epoch.tokens) / static_cast<double>(*epoch.packs);
}

std::string BytesText(double bytes) {
  for (const auto& [unit, size] :
       {std::pair{"TiB", 1024 * kGib}, {"GiB", kGib}, {"MiB", 1024.0 * 1024}}) {
    if (bytes >= size) return fmt::format("{:.4g} {}", bytes / size, unit);
  }
  return fmt::format("{:.4g} KiB", bytes / 1024);
}

std::string PlanText(const PlanReport& report) {
  const PlanFlops& flops = report.flops;
  std::string text = fmt::format(
      "{}: {} parameters, {} trained, {}; {} packs of {} tokens a step, {} in a micro-batch; "
      "layout {}\n",
      report.family, Count(static_cast<double>(report.parameters)),
      Count(static_cast<double>(report.trained)), report.precision, report.batch.global_batch,
      report.batch.sequence_length, report.batch.step.micro_batch, NameOf(report.layout));
  text += MemoryTable(report);
  text += fmt::format(
      "a token: {}FLOP forward (matrices {}, attention {}, head {}), {} computed in training\n",
      Count(flops.forward()), Count(flops.matrices), Count(flops.attention), Count(flops.head),
      Count(flops.Computed(report.batch, report.layout.recompute)));
  text += EpochText(report) + StepText(report) + CheckpointText(report);
  if (report.search.has_value()) text += SearchText(report);
  return text;
}

}  // namespace osler
