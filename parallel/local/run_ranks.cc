#include "parallel/local/run_ranks.h"

#include <memory>
#include <thread>
#include <utility>

#include "base/torch_status.h"
#include "parallel/local/local_communicator.h"

namespace osler {

std::vector<absl::Status> RunRanks(int n, absl::FunctionRef<absl::Status(Communicator&)> body,
                                   const CommunicatorOptions& options) {
  std::vector<std::unique_ptr<Communicator>> group = MakeLocalGroup(n, options);
  std::vector<absl::Status> results(group.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < group.size(); ++r) {
    threads.emplace_back([&result = results[r], comm = std::move(group[r]), body]() mutable {
      result = CatchTorch([&] { return body(*comm); });
      comm.reset();  // leaves before the thread is joined
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

}  // namespace osler
