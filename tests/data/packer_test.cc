#include "data/packer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/philox.h"

namespace osler {
namespace {

using ::testing::ElementsAre;

std::vector<Piece> Pieces(const std::vector<int32_t>& lengths) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < lengths.size(); ++i)
    pieces.push_back({0, static_cast<int64_t>(i), 0, lengths[i]});
  return pieces;
}

std::vector<int32_t> RandomLengths(uint64_t seed, size_t count, int32_t capacity) {
  std::vector<int32_t> lengths;
  for (size_t i = 0; i < count; ++i) {
    lengths.push_back(1 +
                      static_cast<int32_t>(PhiloxBits(seed, i) % static_cast<uint64_t>(capacity)));
  }
  return lengths;
}

int64_t Tokens(const PackPlan& pack) {
  return std::accumulate(pack.begin(), pack.end(), int64_t{0},
                         [](int64_t sum, const Piece& piece) { return sum + piece.length; });
}

std::vector<std::vector<int64_t>> Records(const std::vector<PackPlan>& packs) {
  std::vector<std::vector<int64_t>> records;
  for (const PackPlan& pack : packs) {
    records.emplace_back();
    for (const Piece& piece : pack) records.back().push_back(piece.record);
  }
  return records;
}

// The textbook's best-fit decreasing, looking at every bin for every piece.
std::vector<std::vector<int64_t>> TextbookBestFit(const std::vector<int32_t>& lengths,
                                                  int64_t capacity) {
  std::vector<size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<int64_t>> bins;
  std::vector<int64_t> room;
  for (const size_t i : order) {
    size_t best = bins.size();
    for (size_t b = 0; b < bins.size(); ++b) {
      if (room[b] >= lengths[i] && (best == bins.size() || room[b] < room[best])) best = b;
    }
    if (best == bins.size()) {
      bins.emplace_back();
      room.push_back(capacity);
    }
    bins[best].push_back(static_cast<int64_t>(i));
    room[best] -= lengths[i];
  }
  for (auto& bin : bins) std::sort(bin.begin(), bin.end());
  return bins;
}

TEST(PackBestFitTest, AgreesWithTheTextbook) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const auto capacity = static_cast<int32_t>(1 + PhiloxBits(seed, 0, 1) % 100);
    const std::vector<int32_t> lengths =
        RandomLengths(seed, 1 + PhiloxBits(seed, 0, 2) % 300, capacity);
    EXPECT_EQ(Records(PackBestFit(Pieces(lengths), capacity)), TextbookBestFit(lengths, capacity))
        << seed;
  }
}

TEST(PackBestFitTest, FillsExactlyWhatCanBeFilledExactly) {
  EXPECT_THAT(Records(PackBestFit(Pieces({5, 3, 8, 4, 4}), 8)),
              ElementsAre(ElementsAre(2), ElementsAre(0, 1), ElementsAre(3, 4)));
  for (const int32_t half : {1, 7, 256}) {
    const auto packs = PackBestFit(Pieces(std::vector<int32_t>(10, half)), 2 * half);
    ASSERT_EQ(packs.size(), 5u);
    for (const PackPlan& pack : packs) EXPECT_EQ(Tokens(pack), 2 * half);
  }
}

TEST(PackBestFitTest, WastesLittleOnMixedLengths) {
  const std::vector<int32_t> lengths = RandomLengths(5, 4096, 2048);
  const auto packs = PackBestFit(Pieces(lengths), 2048);
  const double tokens = std::accumulate(lengths.begin(), lengths.end(), 0.0);
  EXPECT_GT(tokens / (2048.0 * static_cast<double>(packs.size())), 0.97);
}

TEST(PackNextFitTest, KeepsTheStream) {
  EXPECT_THAT(Records(PackNextFit(Pieces({5, 3, 8, 4, 4, 1}), 8)),
              ElementsAre(ElementsAre(0, 1), ElementsAre(2), ElementsAre(3, 4), ElementsAre(5)));
  const std::vector<int32_t> lengths = RandomLengths(9, 1000, 64);
  int64_t next = 0;
  for (const PackPlan& pack : PackNextFit(Pieces(lengths), 64)) {
    EXPECT_LE(Tokens(pack), 64);
    for (const Piece& piece : pack) EXPECT_EQ(piece.record, next++);
  }
  EXPECT_EQ(next, 1000);
}

TEST(PackSinglyTest, OnePieceAPack) {
  EXPECT_THAT(Records(PackSingly(Pieces({5, 3, 8}))),
              ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2)));
  EXPECT_TRUE(PackBestFit({}, 8).empty());
  EXPECT_TRUE(PackNextFit({}, 8).empty());
}

}  // namespace
}  // namespace osler
