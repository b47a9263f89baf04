#include "kernels/cpu_rows.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>
#include <thread>

namespace osler {
namespace {

// at::parallel_for runs its body on one thread, and says nothing, where the library was compiled
// without OpenMP.
TEST(ForRows, SharesRowsAmongThreads) {
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  int64_t rows = 0;
  ForRows(2, 1 << 20, [&](int64_t from, int64_t to) {
    const std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
    rows += to - from;
  });
  at::set_num_threads(before);
  EXPECT_EQ(rows, 2);
  EXPECT_EQ(threads.size(), 2u);
}

}  // namespace
}  // namespace osler
