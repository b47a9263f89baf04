#include "tools/launch_flags.h"

namespace osler {

void AddLaunchFlags(CLI::App& command, LaunchFlags& flags) {
  const char* group = "Launch by hand (mpirun, torchrun and srun need none of these)";
  command.add_option("--rank", flags.rank, "this process's rank, from 0")->group(group);
  command.add_option("--world-size", flags.world_size, "the number of ranks")->group(group);
  command.add_option("--master", flags.master, "HOST:PORT where rank 0 listens")->group(group);
}

}  // namespace osler
