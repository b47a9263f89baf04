#include "parallel/slurm.h"

#include <cstdint>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace osler {

int SlurmTasksOnNode(std::string_view text, int node) {
  for (const absl::string_view run : absl::StrSplit(std::string(text), ',')) {
    const std::vector<std::string> parts = absl::StrSplit(run, absl::ByAnyChar("(x)"));
    int tasks = 1, nodes = 1;
    if (!absl::SimpleAtoi(parts[0], &tasks)) return 1;
    if (parts.size() > 2 && !absl::SimpleAtoi(parts[2], &nodes)) return 1;
    if (node < nodes) return tasks;
    node -= nodes;
  }
  return 1;
}

std::string FirstSlurmHost(std::string_view list) {
  std::string host;
  for (size_t i = 0; i < list.size() && list[i] != ','; ++i) {
    if (list[i] != '[') {
      host.push_back(list[i]);
      continue;
    }
    const size_t end = list.find(']', i);
    if (end == std::string_view::npos) return "";
    const std::string_view range = list.substr(i + 1, end - i - 1);
    host.append(range.substr(0, range.find_first_of(",-")));
    i = end;
  }
  return host;
}

int SlurmPort(std::string_view job, std::string_view step) {
  int64_t job_id = 0, step_id = 0;
  if (!absl::SimpleAtoi(std::string(job), &job_id) || job_id < 0) return 0;
  if (!absl::SimpleAtoi(std::string(step), &step_id) || step_id < 0) step_id = 0;
  return static_cast<int>(10000 + (job_id % 20000 * 37 + step_id) % 20000);
}

}  // namespace osler
