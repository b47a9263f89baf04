#include "base/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

namespace osler {
namespace {

// Random123's known answers for philox4x32-10.
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(Philox(0, {0, 0, 0, 0}), (Philox4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox(~uint64_t{0}, {~0u, ~0u, ~0u, ~0u}),
            (Philox4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox(0x299f31d0a4093822, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (Philox4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, BitsAreTheLowHalfOfTheBlock) {
  EXPECT_EQ(PhiloxBits(0, 0), 0xe169c58d6627e8d5u);
  const Philox4 block = Philox(9, {1, 2, 3, 4});
  EXPECT_EQ(PhiloxBits(9, 0x0000000200000001, 0x0000000400000003),
            block[0] | uint64_t{block[1]} << 32);
}

TEST(PhiloxTest, KeysDifferBySeedAndChannel) {
  std::set<uint64_t> keys;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (const char* channel : {"", "a", "b", "aa", "init/x", "init/y"})
      keys.insert(PhiloxKey(seed, channel));
  }
  EXPECT_EQ(keys.size(), 300u);
  EXPECT_EQ(PhiloxKey(7, "shuffle"), PhiloxKey(7, "shuffle"));
}

TEST(PhiloxTest, UniformFillsItsRangeEvenly) {
  constexpr int kBuckets = 64, kDraws = 64 * 4000;
  std::vector<double> count(kBuckets);
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double u = PhiloxUniform(PhiloxKey(3, "u"), i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++count[static_cast<size_t>(u * kBuckets)];
  }
  double chi2 = 0;
  const double expected = kDraws / kBuckets;
  for (const double n : count) chi2 += (n - expected) * (n - expected) / expected;
  EXPECT_LT(chi2, 118);  // 63 degrees of freedom: p < 1e-5 above
  EXPECT_GT(chi2, 25);   // and below
}

TEST(PhiloxTest, NormalHasTheRightMoments) {
  constexpr int kDraws = 400000;
  const uint64_t key = PhiloxKey(11, "n");
  double sum = 0, sum2 = 0, sum3 = 0, sum4 = 0, neighbours = 0, last = 0;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double x = PhiloxNormal(key, i);
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    sum2 += x * x;
    sum3 += x * x * x;
    sum4 += x * x * x * x;
    neighbours += x * last;
    last = x;
  }
  const double five_sigma = 5 / std::sqrt(double{kDraws});
  EXPECT_NEAR(sum / kDraws, 0, five_sigma);
  EXPECT_NEAR(sum2 / kDraws, 1, five_sigma * std::sqrt(2.0));
  EXPECT_NEAR(sum3 / kDraws, 0, five_sigma * std::sqrt(15.0));
  EXPECT_NEAR(sum4 / kDraws, 3, five_sigma * std::sqrt(96.0));
  EXPECT_NEAR(neighbours / kDraws, 0, five_sigma);
}

std::vector<uint64_t> Permutation(uint64_t key, uint64_t size) {
  std::vector<uint64_t> order(size);
  for (uint64_t i = 0; i < size; ++i) order[i] = PermuteIndex(key, i, size);
  return order;
}

TEST(PermuteIndexTest, IsABijectionOfEverySize) {
  std::vector<uint64_t> sizes = {1023, 1024, 1025, 4095, 4096, 4097, 65536, 65537, 100003};
  for (uint64_t size = 1; size <= 300; ++size) sizes.push_back(size);
  for (const uint64_t size : sizes) {
    std::vector<bool> seen(size);
    for (const uint64_t to : Permutation(PhiloxKey(5, "p"), size)) {
      ASSERT_LT(to, size);
      ASSERT_FALSE(seen[to]) << "size " << size;
      seen[to] = true;
    }
  }
}

TEST(PermuteIndexTest, DiffersByKey) {
  for (const uint64_t size : {10, 100, 4097}) {
    EXPECT_NE(Permutation(PhiloxKey(1, "p"), size), Permutation(PhiloxKey(2, "p"), size));
    EXPECT_EQ(Permutation(PhiloxKey(1, "p"), size), Permutation(PhiloxKey(1, "p"), size));
  }
  std::set<std::vector<uint64_t>> orders;  // of four items, over many keys: all 24 or nearly
  for (uint64_t seed = 0; seed < 2000; ++seed) orders.insert(Permutation(PhiloxKey(seed, "p"), 4));
  EXPECT_GE(orders.size(),
            12u);  // a Feistel network makes even permutations only, of which there are 12
}

TEST(PermuteIndexTest, ScattersNeighbours) {
  constexpr uint64_t kSize = 10000;
  double distance = 0;
  const std::vector<uint64_t> order = Permutation(PhiloxKey(1, "p"), kSize);
  for (uint64_t i = 1; i < kSize; ++i) {
    distance += std::abs(static_cast<double>(order[i]) - static_cast<double>(order[i - 1]));
  }
  EXPECT_NEAR(distance / kSize / kSize, 1.0 / 3, 0.02);  // the mean distance of two uniform draws
}

TEST(PermuteIndexTest, HugeSizesStayInRangeAndEnd) {
  for (const uint64_t size :
       {std::numeric_limits<uint64_t>::max(), uint64_t{1} << 63, (uint64_t{1} << 62) + 1}) {
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < 1000; ++i) {
      const uint64_t to = PermuteIndex(7, size - 1 - i, size);
      ASSERT_LT(to, size);
      seen.insert(to);
    }
    EXPECT_EQ(seen.size(), 1000u);
  }
}

}  // namespace
}  // namespace osler
