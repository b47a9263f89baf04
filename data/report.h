// What a build found, kept and left out: report.json in each shard directory, and the table for
// people.
//
// Holds counts, source names and line numbers; never a path, an id or text.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/deid/gate.h"

namespace osler {

// Records of one class that a source's policy let the build skip.
struct Skipped {
  int64_t count = 0;
  std::vector<int64_t> first_lines;  // at most kLinesShown
};
inline constexpr size_t kLinesShown = 10;

struct SourceReport {
  std::string name;
  bool trusted = false;
  int64_t records = 0;  // lines that hold a record or should
  int64_t kept = 0;
  std::map<std::string, Skipped> skipped;  // by class (data/sources/reject.h)
};

struct SplitReport {
  int64_t records = 0, subjects = 0;
};

struct BuildReport {
  std::string profile, policy_digest;
  std::vector<SourceReport> sources;
  RuleCounts identifiers;  // replacements by rule
  SplitReport train, validation;
};

// `split` ("train" or "validation") says whose directory the text goes to.
std::string ReportJson(const BuildReport& report, const std::string& split);
// Lines for people.
std::string ReportTable(const BuildReport& report);

}  // namespace osler
