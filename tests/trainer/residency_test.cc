// Gathering and freeing parameters over thread ranks.
#include "trainer/residency.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <vector>

#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

using Slots = std::vector<int64_t>;

// Slot i: values 100 i, 100 i + 1, ….
const std::vector<std::vector<int64_t>> kShapes = {{5, 3}, {7}, {4, 4}, {5, 3}};

at::Tensor ValueOf(size_t slot) {
  const int64_t first = 100 * static_cast<int64_t>(slot);
  return at::arange(first, first + c10::multiply_integers(kShapes[slot]), at::kDouble)
      .view(kShapes[slot]);
}

class ResidencyTest : public ::testing::TestWithParam<int> {
 protected:
  using Body = std::function<void(ParameterStore&, Residency&, Communicator&)>;
  static void OnRanks(ZeroLevel zero, const Body& body) {
    const auto statuses = testing::RunRanks(GetParam(), [&](Communicator& shard) -> absl::Status {
      ParameterStore store;
      for (size_t i = 0; i < kShapes.size(); ++i)
        store.Declare(std::string(1, static_cast<char>('a' + i)), kShapes[i]);
      store.LayOut({.placements = {},
                    .shard_rank = shard.rank(),
                    .shard_size = shard.size(),
                    .zero = zero,
                    .stage = std::nullopt});
      for (size_t i = 0; i < kShapes.size(); ++i) {
        store.Allocate(static_cast<int64_t>(i), at::kDouble);
        store.TakeValue(static_cast<int64_t>(i), ValueOf(i));
      }
      Residency residency(store, shard);
      body(store, residency, shard);
      return absl::OkStatus();
    });
    for (const absl::Status& status : statuses) EXPECT_THAT(status, testing::IsOk());
  }
  static bool HasMemory(const at::Tensor& x) { return x.storage().data() != nullptr; }
};

TEST_P(ResidencyTest, GathersAndFrees) {
  OnRanks(ZeroLevel::kParameters, [](ParameterStore& store, Residency& residency, Communicator&) {
    const bool cut = store.cuts_parameters();
    EXPECT_EQ(HasMemory(store.slot(0).local), !cut);
    residency.Prefetch(Slots{0, 1});
    residency.Acquire(Slots{0, 1});
    EXPECT_TRUE(at::equal(store.slot(0).local, ValueOf(0)));
    EXPECT_TRUE(at::equal(store.slot(1).local, ValueOf(1)));
    residency.Prefetch(Slots{2});
    residency.Release(Slots{0, 1});
    EXPECT_EQ(HasMemory(store.slot(1).local), !cut);
    residency.Acquire(Slots{2, 3});  // 2 is under way, 3 is not
    EXPECT_TRUE(at::equal(store.slot(2).local, ValueOf(2)));
    EXPECT_TRUE(at::equal(store.slot(3).local, ValueOf(3)));  // in what was slot 0's memory
    residency.Release(Slots{2, 3});
    EXPECT_EQ(HasMemory(store.slot(3).local), !cut);
  });
}

TEST_P(ResidencyTest, CountsUses) {
  OnRanks(ZeroLevel::kParameters, [](ParameterStore& store, Residency& residency, Communicator&) {
    const at::Tensor& local = store.slot(0).local;
    residency.Acquire(Slots{0});
    residency.Acquire(Slots{0});
    residency.Release(Slots{0});
    EXPECT_TRUE(at::equal(local, ValueOf(0)));
    residency.Prefetch(Slots{0});  // the next block is the same again
    residency.Release(Slots{0});
    EXPECT_TRUE(HasMemory(local));
    residency.Acquire(Slots{0});
    EXPECT_TRUE(at::equal(local, ValueOf(0)));
    residency.Release(Slots{0});
    EXPECT_EQ(HasMemory(local), !store.cuts_parameters());
    EXPECT_THROW(residency.Release(Slots{0}), c10::Error);
  });
}

// What autograd saved is the tensor, not its memory, and is right when the memory is back.
TEST_P(ResidencyTest, SavedTensorsStayValid) {
  OnRanks(ZeroLevel::kParameters, [](ParameterStore& store, Residency& residency, Communicator&) {
    at::Tensor x = at::ones({2, 5}, at::kDouble).requires_grad_(true);
    residency.Acquire(Slots{0});
    at::Tensor weight = store.slot(0).local.detach().requires_grad_(true);
    const auto version = weight._version();
    at::Tensor y = at::mm(x, weight);
    residency.Release(Slots{0});
    residency.Acquire(Slots{3});  // takes the memory
    residency.Release(Slots{3});
    residency.Acquire(Slots{0});
    EXPECT_EQ(weight._version(), version);
    const auto gradients = torch::autograd::grad({y}, {x, weight}, {at::ones({2, 3}, at::kDouble)});
    EXPECT_TRUE(at::equal(gradients[0], at::mm(at::ones({2, 3}, at::kDouble), ValueOf(0).t())));
    residency.Release(Slots{0});
  });
}

TEST_P(ResidencyTest, GathersNewValuesAfterAStep) {
  for (const ZeroLevel zero : {ZeroLevel::kOptimizer, ZeroLevel::kParameters}) {
    OnRanks(zero, [](ParameterStore& store, Residency& residency, Communicator&) {
      store.slot(3).trainable = false;
      residency.Prefetch(Slots{1});  // and never used
      for (size_t i = 0; i < 3; ++i) store.slots()[i].piece.mul_(2);
      residency.PiecesChanged();
      residency.Acquire(Slots{0, 1, 2, 3});
      for (size_t i = 0; i < 4; ++i) {
        EXPECT_TRUE(at::equal(store.slots()[i].local, ValueOf(i).mul(i < 3 ? 2 : 1))) << i;
      }
      EXPECT_THROW(residency.PiecesChanged(), c10::Error);  // in use
      residency.Release(Slots{0, 1, 2, 3});
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, ResidencyTest, ::testing::Values(1, 2, 3, 4));

}  // namespace
}  // namespace osler
