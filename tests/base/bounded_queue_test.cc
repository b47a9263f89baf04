#include "base/bounded_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace osler {
namespace {

TEST(BoundedQueueTest, KeepsOrder) {
  BoundedQueue<int> queue(3);
  std::thread producer([&] {
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(queue.Push(i));
    queue.Close();
  });
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(queue.Pop(), i);
  EXPECT_EQ(queue.Pop(), std::nullopt);
  producer.join();
}

TEST(BoundedQueueTest, NeverHoldsMoreThanItsCapacity) {
  BoundedQueue<int> queue(4);
  std::atomic<int> inside{0}, most{0};
  std::thread producer([&] {
    for (int i = 0; i < 2000; ++i) {
      queue.Push(i);
      const int now = ++inside;
      if (now > most) most = now;
    }
    queue.Close();
  });
  int popped = 0;
  while (queue.Pop().has_value()) {
    --inside;
    ++popped;
  }
  producer.join();
  EXPECT_EQ(popped, 2000);
  EXPECT_LE(most, 5);  // the capacity, and one popped but not yet counted
}

TEST(BoundedQueueTest, ManyThreadsLoseAndRepeatNothing) {
  constexpr int kEach = 2000, kThreads = 4;
  BoundedQueue<std::unique_ptr<int>> queue(8);  // movable only
  std::vector<std::atomic<int>> seen(kEach * kThreads);
  std::vector<std::thread> producers, consumers;
  for (int t = 0; t < kThreads; ++t) {
    producers.emplace_back([&queue, t] {
      for (int i = 0; i < kEach; ++i) queue.Push(std::make_unique<int>(t * kEach + i));
    });
    consumers.emplace_back([&] {
      while (auto item = queue.Pop()) ++seen[static_cast<size_t>(**item)];
    });
  }
  for (auto& thread : producers) thread.join();
  queue.Close();
  for (auto& thread : consumers) thread.join();
  for (const auto& count : seen) EXPECT_EQ(count, 1);
}

TEST(BoundedQueueTest, CloseWakesBothSides) {
  BoundedQueue<int> full(1), empty(1);
  ASSERT_TRUE(full.Push(1));
  std::thread pusher([&] { EXPECT_FALSE(full.Push(2)); });
  std::thread popper([&] { EXPECT_EQ(empty.Pop(), std::nullopt); });
  std::this_thread::sleep_for(
      std::chrono::milliseconds(20));  // let both wait; either order is right
  full.Close();
  empty.Close();
  pusher.join();
  popper.join();
  EXPECT_EQ(full.Pop(), 1);  // what was inside stays
  EXPECT_EQ(full.Pop(), std::nullopt);
  EXPECT_FALSE(full.Push(3));
}

}  // namespace
}  // namespace osler
