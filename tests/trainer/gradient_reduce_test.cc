// The reducer alone, over thread ranks: gradients drawn at random against their plain sum.
#include "trainer/gradient_reduce.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sparse_coo_tensor.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/philox.h"
#include "base/status_macros.h"
#include "parallel/tensor_part.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

// Embedding, a block of a column linear, a shared key head, a row linear and a norm, a second
// norm that is frozen, a final norm.
struct Declared {
  const char* name;
  std::vector<int64_t> shape;
  PlacementRule rule;
  bool trainable = true;
};
const std::vector<Declared> kDeclared = {
    {"embed", {12, 3}, {"embed", Split::kVocabulary, 1}},
    {"up", {8, 3}, {"up", Split::kColumn, 1}},
    {"key", {4, 3}, {"key", Split::kColumn, 2}},
    {"down", {3, 8}, {"down", Split::kRow, 1}},
    {"norm", {3}, {"norm"}},
    {"frozen", {5}, {"frozen"}, false},
    {"final", {3}, {"final"}},
};
const std::vector<std::vector<int64_t>> kBackwardBlocks = {{6}, {1, 2, 3, 4, 5}, {0}};

// The part of a parameter's gradient that one rank computes in one micro-batch, in local's shape.
at::Tensor GradientOf(const ParameterStore& store, int64_t slot, int rank, int64_t micro_batch) {
  const uint64_t key =
      PhiloxKey(static_cast<uint64_t>(rank * 100 + micro_batch), store.slot(slot).name);
  at::Tensor x = at::zeros(store.LocalShape(slot), at::kDouble);
  auto* values = x.mutable_data_ptr<double>();
  for (int64_t i = 0; i < x.numel(); ++i) values[i] = PhiloxNormal(key, static_cast<uint64_t>(i));
  return x;
}

struct Layout {
  MeshShape mesh;
  ZeroLevel zero = ZeroLevel::kOptimizer;
  int64_t micro_batches = 1;
  ReduceOptions options = {};
  at::ScalarType dtype = at::kDouble;
};

class Totals {
 public:
  void Expect(const ParameterStore& store, int64_t slot, const at::Tensor& gradient) {
    const std::lock_guard lock(mutex_);
    at::Tensor& sum = sums_[slot];
    if (!sum.defined()) sum = at::zeros(store.slot(slot).shape, at::kDouble);
    Narrow(sum, store.slot(slot).slice).add_(gradient);
  }
  void Check(const ParameterStore& store, double norm, double tolerance) const {
    double squares = 0;
    for (const auto& [slot, sum] : sums_) {
      const at::Tensor& piece = store.slot(slot).gradient_piece;
      at::Tensor expected = at::zeros({piece.numel()}, at::kDouble);
      TakePart(sum, store.slot(slot).slice, store.PieceBegin(slot), expected);
      const double error = at::sub(piece.to(at::kDouble), expected).abs().max().item<double>();
      EXPECT_LE(error, tolerance * sum.abs().max().item<double>()) << store.slot(slot).name;
      squares += std::pow(sum.norm().item<double>(), 2);
    }
    EXPECT_NEAR(norm, std::sqrt(squares), std::max(tolerance, 1e-13) * norm);
  }

 private:
  std::mutex mutex_;
  std::map<int64_t, at::Tensor> sums_;
};

void FillStore(ParameterStore& store, const Mesh& mesh, const Layout& layout) {
  PlacementRules rules;
  for (const Declared& one : kDeclared) {
    const int64_t slot = store.Declare(one.name, one.shape);
    store.slot(slot).trainable = one.trainable;
    rules.push_back(one.rule);
  }
  store.LayOut(LayoutOf(mesh, rules, layout.zero));
  for (size_t i = 0; i < kDeclared.size(); ++i)
    store.Allocate(static_cast<int64_t>(i), layout.dtype);
}

// What each rank contributes in a step; a replica along data that is idle walks nothing.
void Step(ParameterStore& store, Mesh& mesh, GradientReducer& reducer, const Layout& layout,
          Totals& totals) {
  const int64_t micro_batches = mesh.comm(Axis::kData).rank() == 2 ? 0 : layout.micro_batches;
  reducer.Begin(micro_batches);
  for (int64_t m = 0; m < micro_batches; ++m) {
    for (const auto& block : kBackwardBlocks) {
      for (const int64_t slot : block) {
        if (!store.slot(slot).trainable) continue;
        at::Tensor gradient = GradientOf(store, slot, mesh.world().rank(), m);
        totals.Expect(store, slot, gradient);
        if (slot == 0) {  // half through a kernel, half from a lookup
          reducer.Accumulator(slot).add_(gradient.mul(0.5));
          gradient = gradient.mul(0.5).to_sparse(1);
        }
        reducer.Add(slot, gradient.to(layout.dtype));
      }
      reducer.BlockDone(block);
    }
  }
  reducer.Finish();
}

// Pieces against the sum of everything that ranks contributed, twice (a second step begins at 0).
void ExpectSums(const Layout& layout, double tolerance) {
  int ranks = 1;
  for (const int size : layout.mesh.sizes) ranks *= size;
  Totals totals[2];
  const auto statuses = testing::RunRanks(ranks, [&](Communicator& world) -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create(layout.mesh, world));
    ParameterStore store;
    FillStore(store, mesh, layout);
    GradientReducer reducer(store, mesh, layout.options);
    for (Totals& total : totals) {
      Step(store, mesh, reducer, layout, total);
      const double norm = reducer.GlobalNorm();
      world.Barrier().Wait();  // all have said what they contributed
      total.Check(store, norm, tolerance);
      EXPECT_FALSE(store.slot(5).gradient_piece.defined());
      world.Barrier().Wait();
    }
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, testing::IsOk());
}

MeshShape Mesh5(int data, int shard, int context = 1, int tensor = 1) {
  return {{1, data, shard, context, tensor}};
}
constexpr ZeroLevel kLevels[] = {ZeroLevel::kOptimizer, ZeroLevel::kGradients,
                                 ZeroLevel::kParameters};

class GradientReduceTest : public ::testing::TestWithParam<ZeroLevel> {};

TEST_P(GradientReduceTest, SumsOverEveryAxis) {
  for (const MeshShape& mesh :
       {Mesh5(1, 1), Mesh5(3, 1), Mesh5(1, 2), Mesh5(1, 3), Mesh5(1, 4), Mesh5(2, 2), Mesh5(3, 2),
        Mesh5(1, 2, 2), Mesh5(1, 1, 1, 2), Mesh5(1, 2, 1, 2), Mesh5(2, 1, 2, 2), Mesh5(1, 1, 1, 4),
        Mesh5(1, 2, 1, 4)}) {
    for (const int64_t micro_batches : {1, 2}) {
      SCOPED_TRACE(::testing::PrintToString(mesh.sizes) + " " + std::to_string(micro_batches));
      ExpectSums({mesh, GetParam(), micro_batches}, 1e-13);
    }
  }
}

// A bucket for every slot, many in flight.
TEST_P(GradientReduceTest, SmallBuckets) {
  for (const MeshShape& mesh : {Mesh5(2, 1), Mesh5(2, 2), Mesh5(2, 2, 1, 2)}) {
    ExpectSums({mesh, GetParam(), 2, {.bucket_bytes = 8}}, 1e-13);
  }
}

TEST_P(GradientReduceTest, Bf16RoundsWhatTravels) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const MeshShape& mesh : {Mesh5(2, 1), Mesh5(1, 2), Mesh5(2, 3)}) {
      // At most three roundings, each of 2⁻⁹ relative to sums of up to a few gradients' size.
      ExpectSums({mesh, GetParam(), 1, {.type = ReductionType::kBf16}, dtype}, 0.02);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, GradientReduceTest, ::testing::ValuesIn(kLevels));

// Both ends of a pipeline hold "embed": gradients are summed, and count once in the norm.
TEST(GradientReduceTiedTest, SumsOverBothEnds) {
  for (const ZeroLevel zero : kLevels) {
    const auto statuses = testing::RunRanks(6, [&](Communicator& world) -> absl::Status {
      OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create({{3, 1, 2, 1, 1}}, world));
      const int stage = mesh.comm(Axis::kPipeline).rank();
      ParameterStore store;
      store.Declare("embed", {5, 3});
      store.Declare("middle", {4});
      StoreLayout layout = LayoutOf(mesh, {}, zero);
      layout.stage = stage == 1 ? std::vector<int64_t>{1} : std::vector<int64_t>{0};
      store.LayOut(layout);
      for (const int64_t slot : {0, 1}) store.Allocate(slot, at::kDouble);
      const auto ends = mesh.comm(Axis::kPipeline).Split(stage == 1 ? 1 : 0, stage);
      GradientReducer reducer(store, mesh,
                              {.tied_group = stage == 1 ? nullptr : ends.get(), .tied_slot = 0});
      const int64_t slot = stage == 1 ? 1 : 0;
      reducer.Begin(1);
      reducer.Add(slot, at::full(store.LocalShape(slot), 1.0 + stage, at::kDouble));
      reducer.BlockDone(std::vector<int64_t>{slot});
      reducer.Finish();
      const double each = stage == 1 ? 2 * 2 : 2 * (1 + 3);
      const at::Tensor& piece = store.slot(slot).gradient_piece;
      const int64_t real = std::min(piece.numel(), store.LocalCount(slot) - store.PieceBegin(slot));
      EXPECT_TRUE(at::equal(piece.narrow(0, 0, real), at::full({real}, each, at::kDouble)));
      EXPECT_NEAR(reducer.GlobalNorm(), std::sqrt(15 * 64.0 + 4 * 16.0), 1e-12);
      return absl::OkStatus();
    });
    for (const absl::Status& status : statuses) EXPECT_THAT(status, testing::IsOk());
  }
}

// A gradient that someone else still reads is left as it was.
TEST(GradientReduceSharingTest, KeepsItsHandsOffSharedGradients) {
  const auto statuses = testing::RunRanks(2, [&](Communicator& world) -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create({{1, 1, 2, 1, 1}}, world));
    ParameterStore store;
    for (const char* name : {"a", "b"}) store.Declare(name, {4});
    store.LayOut(LayoutOf(mesh, {}, ZeroLevel::kGradients));
    for (const int64_t slot : {0, 1}) store.Allocate(slot, at::kDouble);
    GradientReducer reducer(store, mesh, {});
    const at::Tensor shared = at::full({4}, 1.0 + world.rank(), at::kDouble);
    reducer.Begin(1);
    for (const int64_t slot : {0, 1}) reducer.Add(slot, shared);
    reducer.BlockDone(std::vector<int64_t>{0, 1});
    reducer.Finish();
    EXPECT_TRUE(at::equal(shared, at::full({4}, 1.0 + world.rank(), at::kDouble)));
    for (const int64_t slot : {0, 1}) {
      EXPECT_TRUE(at::equal(store.slot(slot).gradient_piece, at::full({2}, 3.0, at::kDouble)));
    }
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, testing::IsOk());
}

}  // namespace
}  // namespace osler
