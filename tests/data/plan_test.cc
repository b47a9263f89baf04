#include "data/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/philox.h"
#include "data/mixture.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::testing::AllOf;
using ::testing::HasSubstr;

Lengths SomeLengths(size_t count, uint64_t seed, uint32_t longest) {
  Lengths lengths(count);
  for (size_t i = 0; i < count; ++i)
    lengths[i].tokens = static_cast<uint32_t>(1 + PhiloxBits(seed, i) % longest);
  return lengths;
}

std::unique_ptr<Plan> MakePlan(std::vector<PlanSource> sources, PlanOptions options) {
  auto plan = Plan::Create(std::move(sources), options);
  EXPECT_THAT(plan, IsOk());
  return *std::move(plan);
}

std::unique_ptr<Plan> MakePlan(const Lengths& lengths, PlanOptions options) {
  return MakePlan({{&lengths, "digest", 1.0}}, options);
}

// The packs of epoch `epoch`, with the plan standing at its start.
std::vector<PackPlan> Epoch(Plan& plan, int64_t epoch) {
  EXPECT_EQ(plan.Position().epoch, epoch);
  std::vector<PackPlan> packs;
  while (plan.Position().epoch == epoch) packs.push_back(plan.Next());
  return packs;
}

std::vector<int64_t> Records(const std::vector<PackPlan>& packs) {
  std::vector<int64_t> records;
  for (const PackPlan& pack : packs) {
    for (const Piece& piece : pack) records.push_back(piece.record);
  }
  return records;
}

std::vector<int64_t> Sorted(std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  return values;
}

std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) range[static_cast<size_t>(i)] = i;
  return range;
}

TEST(PlanTest, EveryRecordOnceAnEpochInAnotherOrderEachTime) {
  for (const int64_t count : {1, 5, 4095, 4096, 4097, 10'000}) {
    for (const Packing packing : {Packing::kOn, Packing::kOff}) {
      const Lengths lengths = SomeLengths(static_cast<size_t>(count), 1, 100);
      const auto plan = MakePlan(lengths, {.sequence_length = 128, .seed = 3, .packing = packing});
      const std::vector<int64_t> first = Records(Epoch(*plan, 0)),
                                 second = Records(Epoch(*plan, 1));
      EXPECT_EQ(Sorted(first), Range(count));
      EXPECT_EQ(Sorted(second), Range(count));
      EXPECT_TRUE(count <= 100 || first != second);
    }
  }
}

TEST(PlanTest, AWindowHoldsTheNextSamplesOfThePermutation) {
  const Lengths lengths = SomeLengths(9000, 1, 100);
  const PlanOptions options{.sequence_length = 128, .seed = 3, .packing = Packing::kOn};
  const auto plan = MakePlan(lengths, options);
  const uint64_t key = PhiloxKey(3, "shuffle/digest/0");
  for (int64_t window = 0; window < 3; ++window) {
    std::vector<int64_t> want, got;
    for (int64_t i = window * 4096; i < std::min<int64_t>(9000, window * 4096 + 4096); ++i) {
      want.push_back(static_cast<int64_t>(PermuteIndex(key, static_cast<uint64_t>(i), 9000)));
    }
    while (plan->Position().epoch == 0 && plan->Position().window == window) {
      const PackPlan pack = plan->Next();
      int64_t tokens = 0;
      auto at = want.begin();
      for (const Piece& piece : pack) {  // in stream order
        at = std::find(at, want.end(), piece.record);
        ASSERT_NE(at, want.end());
        tokens += piece.length;
        got.push_back(piece.record);
      }
      EXPECT_LE(tokens, 128);
    }
    EXPECT_EQ(Sorted(got), Sorted(want));
  }
}

TEST(PlanTest, FileOrderIsTheFile) {
  const Lengths lengths = SomeLengths(9000, 1, 100);
  for (const Packing packing : {Packing::kOn, Packing::kOff}) {
    const auto plan =
        MakePlan(lengths, {.sequence_length = 128, .packing = packing, .order = Order::kFile});
    EXPECT_EQ(Records(Epoch(*plan, 0)), Range(9000));
    EXPECT_EQ(Records(Epoch(*plan, 1)), Range(9000));
  }
}

TEST(PlanTest, TheSeedAndTheDataChooseTheOrder) {
  const Lengths lengths = SomeLengths(1000, 1, 100);
  const auto order = [&](uint64_t seed, const char* digest) {
    return Records(
        Epoch(*MakePlan({{&lengths, digest, 1.0}}, {.sequence_length = 128, .seed = seed}), 0));
  };
  EXPECT_EQ(order(1, "a"), order(1, "a"));
  EXPECT_NE(order(1, "a"), order(2, "a"));
  EXPECT_NE(order(1, "a"), order(1, "b"));
}

// Runs that were begun with an earlier version continue only if the order is the same.
TEST(PlanTest, TheOrderIsThatOfFormatVersionOne) {
  const Lengths a = SomeLengths(5000, 1, 300), b = SomeLengths(700, 2, 300);
  const auto plan =
      MakePlan({{&a, "a", 2.0}, {&b, "b", 1.0}}, {.sequence_length = 256, .seed = 11});
  Sha256 digest;
  for (int i = 0; i < 8000; ++i) {
    for (const Piece& piece : plan->Next()) {
      digest.Update(
          absl::StrCat(piece.source, " ", piece.record, " ", piece.begin, " ", piece.length, "\n"));
    }
    digest.Update("\n");
  }
  EXPECT_EQ(digest.Hex(), "1b18c860c296410520de42626300d98067b3d27425181ad5c95607669507e096");
}

TEST(PlanTest, RecordsThatLoseTheirTargetsAreCounted) {
  // No target; all before the cut; some before it; the first right behind it; as long as the cut.
  const Lengths lengths = {{30, 0, 0}, {30, 1, 9}, {30, 9, 29}, {30, 10, 12}, {10, 1, 9}};
  const auto counts = [&](LongRecordPolicy policy) {
    return MakePlan(lengths, {.sequence_length = 10, .long_records = policy})->counts();
  };
  EXPECT_EQ(counts(LongRecordPolicy::kTruncate).cut_off, 1);
  EXPECT_EQ(counts(LongRecordPolicy::kTruncate).taught, 3);
  EXPECT_EQ(counts(LongRecordPolicy::kSplit).cut_off, 0);
  EXPECT_EQ(counts(LongRecordPolicy::kSplit).taught, 4);
  EXPECT_EQ(counts(LongRecordPolicy::kDrop).cut_off, 0);
  EXPECT_EQ(counts(LongRecordPolicy::kDrop).taught, 1);
}

TEST(PlanTest, LongRecordsAreTruncatedSplitOrDropped) {
  Lengths lengths(4);
  lengths[0].tokens = 10;
  lengths[1].tokens = 25;
  lengths[2].tokens = 0;
  lengths[3].tokens = 20;
  const auto run = [&](LongRecordPolicy policy, PlanCounts* counts) {
    const auto plan =
        MakePlan(lengths, {.sequence_length = 10, .order = Order::kFile, .long_records = policy});
    *counts = plan->counts();
    return Epoch(*plan, 0);
  };
  PlanCounts counts;
  EXPECT_EQ(run(LongRecordPolicy::kTruncate, &counts),
            (std::vector<PackPlan>{{{0, 0, 0, 10}}, {{0, 1, 0, 10}}, {{0, 3, 0, 10}}}));
  EXPECT_EQ(counts.records, 4);
  EXPECT_EQ(counts.truncated, 2);
  EXPECT_EQ(counts.dropped, 1);
  EXPECT_EQ(counts.tokens, 30);
  EXPECT_EQ(run(LongRecordPolicy::kSplit, &counts), (std::vector<PackPlan>{{{0, 0, 0, 10}},
                                                                           {{0, 1, 0, 10}},
                                                                           {{0, 1, 10, 10}},
                                                                           {{0, 1, 20, 5}},
                                                                           {{0, 3, 0, 10}},
                                                                           {{0, 3, 10, 10}}}));
  EXPECT_EQ(counts.split, 2);
  EXPECT_EQ(counts.truncated, 0);
  EXPECT_EQ(counts.tokens, 55);
  EXPECT_EQ(run(LongRecordPolicy::kDrop, &counts), (std::vector<PackPlan>{{{0, 0, 0, 10}}}));
  EXPECT_EQ(counts.dropped, 3);
  EXPECT_EQ(counts.tokens, 10);
}

TEST(PlanTest, NothingToTrainOnIsAnErrorThatSaysWhy) {
  const Lengths none, empty(3);
  Lengths longer(3);
  for (RecordLength& length : longer) length.tokens = 11;
  const PlanOptions options{.sequence_length = 10, .long_records = LongRecordPolicy::kDrop};
  EXPECT_THAT(Plan::Create({{&none, "d", 1}}, options),
              Fails(ExitCode::kData, HasSubstr("no records")));
  EXPECT_THAT(Plan::Create({{&empty, "d", 1}}, options),
              Fails(ExitCode::kData, HasSubstr("empty")));
  EXPECT_THAT(Plan::Create({{&longer, "d", 1}}, options),
              Fails(ExitCode::kData, AllOf(HasSubstr("longer"), HasSubstr("sequence_length 10"))));
  EXPECT_THAT(Plan::Create({}, options), Fails(ExitCode::kConfig, HasSubstr("no data source")));
  EXPECT_THAT(Plan::Create({{&longer, "d", 0}}, options),
              Fails(ExitCode::kConfig, HasSubstr("weight 0")));
  EXPECT_THAT(Plan::Create({{&longer, "d", -1}}, options),
              Fails(ExitCode::kConfig, HasSubstr("weight of data source 1")));
  EXPECT_THAT(Plan::Create({{&longer, "d", 1}}, {.sequence_length = 0}),
              Fails(ExitCode::kConfig, HasSubstr("sequence_length")));
}

TEST(PlanTest, AWindowThatIsDroppedWholeIsPassedOver) {
  Lengths lengths(3 * 4096);
  lengths[9000].tokens = 7;
  const auto plan = MakePlan(lengths, {.sequence_length = 10, .order = Order::kFile});
  EXPECT_EQ(plan->Position().window, 2);
  EXPECT_EQ(plan->Next(), (PackPlan{{0, 9000, 0, 7}}));
  EXPECT_EQ(plan->Next(), (PackPlan{{0, 9000, 0, 7}}));
  EXPECT_EQ(plan->EpochStart(5).pack, 5);
}

TEST(MixtureTest, EverySourceStaysWithinOneSampleOfItsShare) {
  for (uint64_t trial = 0; trial < 60; ++trial) {
    const size_t sources = 1 + trial % 8;
    std::vector<double> weights;
    double sum = 0;
    for (size_t k = 0; k < sources; ++k) {
      weights.push_back(std::exp(4 * PhiloxNormal(trial, k)));
      sum += weights.back();
    }
    if (sources > 2) sum -= weights[1], weights[1] = 0;
    const Mixture mixture(weights);
    std::vector<int64_t> taken(sources);
    for (int64_t n = 1; n <= 5000; ++n) {
      ++taken[static_cast<size_t>(mixture.Choose(taken))];
      for (size_t k = 0; k < sources; ++k) {
        ASSERT_LT(
            std::abs(weights[k] / sum * static_cast<double>(n) - static_cast<double>(taken[k])),
            1.0)
            << "trial " << trial << " source " << k << " after " << n;
      }
      ASSERT_TRUE(mixture.Fits(taken));
    }
    EXPECT_TRUE(sources <= 2 || taken[1] == 0);
  }
}

TEST(MixtureTest, EvenAfterTrillionsOfSamples) {
  const Mixture mixture({3, 1});
  std::vector<int64_t> taken = {3'000'000'000'000, 1'000'000'000'000};
  for (int i = 0; i < 400; ++i) ++taken[static_cast<size_t>(mixture.Choose(taken))];
  EXPECT_EQ(taken, (std::vector<int64_t>{3'000'000'000'300, 1'000'000'000'100}));
}

TEST(PlanTest, SourcesBeginAnewOnTheirOwn) {
  const Lengths small = SomeLengths(10, 1, 5), large = SomeLengths(90, 2, 5);
  const auto plan = MakePlan({{&small, "small", 1}, {&large, "large", 1}},
                             {.sequence_length = 5, .packing = Packing::kOff});
  std::vector<std::vector<int64_t>> records(2);
  for (const PackPlan& pack : Epoch(*plan, 0))
    records[static_cast<size_t>(pack[0].source)].push_back(pack[0].record);
  ASSERT_EQ(records[0].size(), 50u);  // an epoch is 100 samples, half of them from each
  EXPECT_EQ(std::set<int64_t>(records[1].begin(), records[1].end()).size(), 50u);
  std::set<std::vector<int64_t>> orders;
  for (size_t pass = 0; pass < 5; ++pass) {
    const std::vector<int64_t> one(records[0].begin() + 10 * static_cast<int64_t>(pass),
                                   records[0].begin() + 10 * static_cast<int64_t>(pass + 1));
    EXPECT_EQ(Sorted(one), Range(10));
    orders.insert(one);
  }
  EXPECT_EQ(orders.size(), 5u);
}

class PlanSeekTest : public ::testing::TestWithParam<PlanOptions> {};

TEST_P(PlanSeekTest, EveryCursorContinuesAsReadingThroughDoes) {
  const Lengths a = SomeLengths(5000, 1, 300), b = SomeLengths(3000, 2, 300);
  const std::vector<PlanSource> sources = {{&a, "a", 1.0}, {&b, "b", 2.5}};
  const auto plan = MakePlan(sources, GetParam());
  const auto other = MakePlan(sources, GetParam()), skipper = MakePlan(sources, GetParam());
  std::vector<PackPlan> packs;
  std::vector<Cursor> cursors;
  while (plan->Position().epoch < 2) {
    cursors.push_back(plan->Position());
    packs.push_back(plan->Next());
  }
  for (size_t i = 0; i < packs.size(); i = i < 5 ? i + 1 : i * 5 / 4) {
    ASSERT_EQ(cursors[i].pack, static_cast<int64_t>(i));
    ASSERT_OK_AND_ASSIGN(const Cursor cursor, Cursor::Parse(cursors[i].Serialize()));
    ASSERT_EQ(cursor, cursors[i]);
    ASSERT_THAT(other->Seek(cursor), IsOk());
    skipper->SkipTo(static_cast<int64_t>(i));
    ASSERT_EQ(skipper->Position(), cursor);
    for (size_t j = i; j < std::min(packs.size(), i + 3); ++j) {
      ASSERT_EQ(other->Position(), cursors[j]);
      ASSERT_EQ(other->Next(), packs[j]);
    }
  }
  for (const int64_t epoch : {2, 1, 0}) {
    const auto first = std::find_if(cursors.begin(), cursors.end(),
                                    [&](const Cursor& c) { return c.epoch == epoch; });
    EXPECT_EQ(other->EpochStart(epoch), first == cursors.end() ? plan->Position() : *first);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Options, PlanSeekTest,
    ::testing::Values(
        PlanOptions{.sequence_length = 256, .seed = 5},
        PlanOptions{.sequence_length = 256, .seed = 5, .packing = Packing::kOff},
        PlanOptions{.sequence_length = 100,
                    .order = Order::kFile,
                    .long_records = LongRecordPolicy::kSplit},
        PlanOptions{.sequence_length = 100, .seed = 1, .long_records = LongRecordPolicy::kDrop}));

TEST(CursorTest, IsBelow200BytesForEightSources) {
  Cursor cursor{1'000'000'000'000, 123'456'789, 12'345'678, 4095,
                std::vector<int64_t>(8, 99'999'999'999'999)};
  EXPECT_LE(cursor.Serialize().size(), 200u);
  ASSERT_OK_AND_ASSIGN(const Cursor back, Cursor::Parse(cursor.Serialize()));
  EXPECT_EQ(back, cursor);
}

TEST(CursorTest, DamagedTextIsRefused) {
  for (const char* text :
       {"", ":", "1,2,3,4", "1,2,3:4", "1,2,3,4:", "1,2,3,4,5:6", "1,2,3,4:-6", "1,2,3,+4:6",
        "1,2,3,4:6:7", "1,2,3,99999999999999999999:6", "1, 2,3,4:6", "a,2,3,4:6", "1,2,3,4:1e3"}) {
    EXPECT_THAT(Cursor::Parse(text), Fails(ExitCode::kData, HasSubstr("damaged"))) << text;
  }
}

TEST(PlanTest, ACursorOfOtherDataIsRefused) {
  const Lengths a = SomeLengths(9000, 1, 100), b = SomeLengths(9001, 1, 100);
  const PlanOptions options{.sequence_length = 128, .seed = 3};
  const auto plan = MakePlan(a, options);
  plan->SkipTo(3000);
  const Cursor good = plan->Position();
  ASSERT_GT(good.window, 0);
  EXPECT_THAT(plan->Seek(good), IsOk());
  std::vector<Cursor> bad(9, good);
  ++bad[0].taken[0];
  bad[1].taken.push_back(0);
  bad[2].window += 3;
  ++bad[3].epoch;
  bad[4].pack_in_window = 4097;
  bad[5].pack = bad[5].pack_in_window - 1;
  bad[6].pack_in_window = -1;
  bad[7].epoch = 100'000'000'000'000;
  bad[8] = {0, 0, 0, 0, {}};
  for (const Cursor& cursor : bad) {
    EXPECT_THAT(plan->Seek(cursor), Fails(ExitCode::kData, HasSubstr("saved position")))
        << cursor.Serialize();
    EXPECT_EQ(plan->Position(), good);
  }
  Cursor later = MakePlan(a, options)->EpochStart(1);
  EXPECT_THAT(MakePlan(b, options)->Seek(later), Fails(ExitCode::kData, HasSubstr("other data")));
}

TEST(PlanTest, AMillionRecordsArePlannedInMilliseconds) {
  const Lengths lengths = SomeLengths(1'000'000, 1, 1000);
  const auto begin = std::chrono::steady_clock::now();
  const auto plan = MakePlan(lengths, {.sequence_length = 2048, .seed = 3});
  const auto created = std::chrono::steady_clock::now();
  while (plan->Position().window < 40) plan->Next();
  const auto end = std::chrono::steady_clock::now();
  const double per_window = std::chrono::duration<double, std::milli>(end - created).count() / 40;
  std::printf("create %.1f ms, %.2f ms a window\n",
              std::chrono::duration<double, std::milli>(created - begin).count(), per_window);
  EXPECT_LT(per_window,
            60);  // three to five milliseconds; the bound allows sanitizers and neighbours
}

}  // namespace
}  // namespace osler
