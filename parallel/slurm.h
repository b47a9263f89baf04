// What Slurm's environment variables say in its own short hand.
#pragma once

#include <string>
#include <string_view>

namespace osler {

// "2(x3),1" (tasks on each node, runs folded) → the tasks on node `node`; 1 when it says nothing
// about it.
int SlurmTasksOnNode(std::string_view text, int node);

// The first host of a node list: "n[01-03,7],m2" → "n01".
std::string FirstSlurmHost(std::string_view list);

// A port that the ranks of one job step agree on without talking: 10000 to 29999. 0 without a job.
int SlurmPort(std::string_view job, std::string_view step);

}  // namespace osler
