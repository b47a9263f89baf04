#include "trainer/verify/report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace osler {
namespace {

using nlohmann::ordered_json;

constexpr char kRow[] = "%-33s %5d  %-48s %8.1e  %8.1e  %-34s %-6s %6.2f\n";

// PRE: not empty. One that is no number is the worst there is.
const Deviation& Worst(const std::vector<Deviation>& all) {
  return *std::max_element(all.begin(), all.end(), [](const Deviation& a, const Deviation& b) {
    if (std::isnan(a.relative) || std::isnan(b.relative)) return std::isnan(b.relative);
    return a.relative < b.relative;
  });
}

// Not every parser reads NaN.
ordered_json Number(double x) { return std::isfinite(x) ? ordered_json(x) : ordered_json(); }

ordered_json ToJson(const Deviation& one) {
  return {{"name", one.name}, {"relative", Number(one.relative)}};
}

// "shard 1.2 MB, tensor 0.3 MB", the axes that sent anything.
std::string BytesText(const std::array<int64_t, kAxes>& bytes) {
  std::vector<std::string> parts;
  for (size_t a = 0; a < kAxes; ++a) {
    if (bytes[a] > 0)
      parts.push_back(absl::StrFormat("%s %.2f", std::string(kAxisNames[a]),
                                      static_cast<double>(bytes[a]) / 1e6));
  }
  return absl::StrJoin(parts, ", ");
}

ordered_json Head(const VerifyLayout& layout) {
  return {{"layout", layout.name}, {"ranks", layout.ranks()}};
}

}  // namespace

std::string VerifyTableHeader() {
  return absl::StrFormat("%-33s %5s  %-48s %8s  %8s  %-34s %-6s %6s\n", "layout", "ranks",
                         "worst gradient", "relative", "5 steps", "MB sent a step", "", "s");
}

std::string VerifyTableRow(const VerifyResult& result) {
  const Deviation& gradient = Worst(result.gradients);
  const std::vector<std::string> failures = result.Failures();
  std::string row =
      absl::StrFormat(kRow, result.layout.name, result.layout.ranks(), gradient.name,
                      gradient.relative, Worst(result.parameters).relative, BytesText(result.bytes),
                      failures.empty() ? "ok" : "FAILED", result.seconds);
  constexpr size_t kShown = 5;
  for (size_t i = 0; i < std::min(failures.size(), kShown); ++i)
    row += absl::StrFormat("    differs: %s\n", failures[i]);
  if (failures.size() > kShown)
    row += absl::StrFormat("    and %d more\n", failures.size() - kShown);
  return row;
}

std::string VerifyTableSkip(const VerifyLayout& layout, const std::string& reason) {
  return absl::StrFormat("%-33s %5d  skipped: %s\n", layout.name, layout.ranks(), reason);
}

std::string VerifyJsonLine(const VerifyResult& result) {
  ordered_json line = Head(result.layout);
  const std::vector<std::string> failures = result.Failures();
  line["ok"] = failures.empty();
  line["failures"] = failures;
  line["worst_gradient"] = ToJson(Worst(result.gradients));
  line["worst_parameter"] = ToJson(Worst(result.parameters));
  line["loss"] = Number(Worst(result.losses).relative);
  line["grad_norm"] = Number(Worst(result.norms).relative);
  line["bytes_sent"] = ordered_json::object();
  for (size_t a = 0; a < kAxes; ++a)
    line["bytes_sent"][std::string(kAxisNames[a])] = result.bytes[a];
  line["seconds"] = result.seconds;
  return line.dump() + "\n";
}

std::string VerifyJsonSkip(const VerifyLayout& layout, const std::string& reason) {
  ordered_json line = Head(layout);
  line["skipped"] = reason;
  return line.dump() + "\n";
}

}  // namespace osler
