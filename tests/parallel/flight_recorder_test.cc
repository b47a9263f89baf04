#include "parallel/flight_recorder.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

namespace osler {
namespace {

TEST(FlightRecorder, KnowsWhatEndedAndWhatIsPending) {
  FlightRecorder recorder;
  EXPECT_FALSE(recorder.LastCompleted().has_value());
  recorder.SetBlock("layer 3 forward");
  const uint64_t gather = recorder.Start("shard", "all-gather", "model.norm.weight", 64);
  recorder.SetBlock("layer 4 forward");
  const uint64_t sum = recorder.Start("tensor", "all-reduce", "", 8);
  recorder.Finish(gather);
  ASSERT_TRUE(recorder.LastCompleted().has_value());
  EXPECT_EQ(recorder.LastCompleted()->number, gather);
  EXPECT_EQ(recorder.LastCompleted()->block, "layer 3 forward");
  EXPECT_EQ(recorder.LastCompleted()->bytes, 64);
  ASSERT_EQ(recorder.Pending().size(), 1u);
  EXPECT_EQ(recorder.Pending()[0].number, sum);
  EXPECT_EQ(recorder.Pending()[0].group, "tensor");
  EXPECT_EQ(recorder.Pending()[0].block, "layer 4 forward");
  recorder.Finish(sum);
  EXPECT_EQ(recorder.LastCompleted()->number, sum);
  EXPECT_TRUE(recorder.Pending().empty());
}

// An older one that ends later is not the last that was started.
TEST(FlightRecorder, TheLastCompletedIsTheOneThatStartedLast) {
  FlightRecorder recorder;
  const uint64_t first = recorder.Start("g", "send", "a", 1);
  const uint64_t second = recorder.Start("g", "send", "b", 1);
  recorder.Finish(second);
  recorder.Finish(first);
  EXPECT_EQ(recorder.LastCompleted()->what, "b");
}

TEST(FlightRecorder, KeepsTheLast64) {
  FlightRecorder recorder;
  for (int i = 0; i <= 100; ++i)
    recorder.Finish(recorder.Start("g", "barrier", std::to_string(i), 0));
  const auto entries = recorder.Entries();
  ASSERT_EQ(entries.size(), FlightRecorder::kCapacity);
  EXPECT_EQ(entries.front().what, "37");
  EXPECT_EQ(entries.back().what, "100");
}

// It may be the one that all others wait for.
TEST(FlightRecorder, KeepsTheOldestThatIsNotFinished) {
  FlightRecorder recorder;
  const uint64_t old = recorder.Start("g", "barrier", "old", 0);
  for (int i = 1; i <= 1000; ++i)
    recorder.Finish(recorder.Start("g", "barrier", std::to_string(i), 0));
  ASSERT_EQ(recorder.Pending().size(), 1u);
  EXPECT_EQ(recorder.Pending()[0].what, "old");
  recorder.Finish(old);
  recorder.Start("g", "barrier", "new", 0);
  EXPECT_EQ(recorder.Entries().size(), FlightRecorder::kCapacity);
  EXPECT_EQ(recorder.LastCompleted()->what, "1000");
}

TEST(FlightRecorder, ForgetsWhatNeverEnds) {
  FlightRecorder recorder;
  const uint64_t first = recorder.Start("g", "barrier", "first", 0);
  for (size_t i = 0; i < FlightRecorder::kMostEntries; ++i) recorder.Start("g", "barrier", "", 0);
  recorder.Finish(first);  // its place is taken: nobody else's end
  EXPECT_EQ(recorder.Entries().size(), FlightRecorder::kMostEntries);
  EXPECT_FALSE(recorder.LastCompleted().has_value());
}

TEST(FlightRecorder, IsReadWhileItIsWritten) {
  FlightRecorder recorder;
  std::atomic<bool> stop = false;
  std::thread reader([&] {
    while (!stop) {
      for (const auto& entry : recorder.Pending()) EXPECT_EQ(entry.what, entry.block);
    }
  });
  for (int i = 0; i < 5000; ++i) {
    const std::string label = std::to_string(i) + " with a text too long for a short string";
    recorder.SetBlock(label);
    recorder.Finish(recorder.Start("g", "all-reduce", label, i));
  }
  stop = true;
  reader.join();
  EXPECT_EQ(recorder.LastCompleted()->bytes, 4999);
}

}  // namespace
}  // namespace osler
