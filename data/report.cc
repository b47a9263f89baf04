#include "data/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace osler {
namespace {

using Json = nlohmann::ordered_json;

Json SourceJson(const SourceReport& source) {
  Json skipped = Json::object();
  for (const auto& [reason, some] : source.skipped) {
    skipped[reason] = {{"records", some.count}, {"first_lines", some.first_lines}};
  }
  return {{"name", source.name},
          {"trusted", source.trusted},
          {"records", source.records},
          {"kept", source.kept},
          {"skipped", std::move(skipped)}};
}

}  // namespace

std::string ReportJson(const BuildReport& report, const std::string& split) {
  Json sources = Json::array();
  for (const SourceReport& source : report.sources) sources.push_back(SourceJson(source));
  int64_t total = 0;
  for (const auto& [rule, count] : report.identifiers) total += count;
  const auto split_json = [](const SplitReport& s) {
    return Json{{"records", s.records}, {"subjects", s.subjects}};
  };
  const Json json = {
      {"format", 1},
      {"split", split},
      {"profile", report.profile},
      {"policy_digest", report.policy_digest},
      {"sources", std::move(sources)},
      {"identifiers", total},
      {"identifiers_by_rule", report.identifiers},
      {"splits",
       {{"train", split_json(report.train)}, {"validation", split_json(report.validation)}}},
  };
  return json.dump(2) + "\n";
}

std::string ReportTable(const BuildReport& report) {
  std::string table =
      fmt::format("{:<20} {:>10} {:>10} {:>10}\n", "source", "records", "kept", "skipped");
  for (const SourceReport& source : report.sources) {
    table +=
        fmt::format("{:<20} {:>10} {:>10} {:>10}{}\n", source.name, source.records, source.kept,
                    source.records - source.kept, source.trusted ? "  trusted: not searched" : "");
    for (const auto& [reason, some] : source.skipped) {
      table += fmt::format("  left out, {}: {} (line {}{})\n", reason, some.count,
                           fmt::join(some.first_lines, ", "),
                           some.count > static_cast<int64_t>(some.first_lines.size()) ? ", …" : "");
    }
  }
  table += fmt::format("{:<20} {:>10} {:>10}\n", "split", "records", "subjects");
  table +=
      fmt::format("{:<20} {:>10} {:>10}\n", "train", report.train.records, report.train.subjects);
  if (report.validation.records > 0) {
    table += fmt::format("{:<20} {:>10} {:>10}\n", "validation", report.validation.records,
                         report.validation.subjects);
  }
  table += "identifiers replaced:";
  int64_t total = 0;
  for (const auto& [rule, count] : report.identifiers) {
    if (count > 0) table += fmt::format(" {} {} ·", rule, count);
    total += count;
  }
  return table + fmt::format(" {} in all", total);
}

}  // namespace osler
