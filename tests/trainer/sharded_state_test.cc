// Checkpoints of any layout load in any other, and nothing is written twice.
#include "trainer/sharded_state.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/errors.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "checkpoint/reader.h"
#include "parallel/tensor_part.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "tests/testing/temp_dir.h"
#include "trainer/checkpoint_saver.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;
using ::osler::testing::RunRanks;
using ::osler::testing::TempDir;

struct Declared {
  const char* name;
  std::vector<int64_t> shape;
  PlacementRule rule;
};
const std::vector<Declared> kDeclared = {
    {"embed", {10, 3}, {"embed", Split::kVocabulary, 1}},
    {"up", {8, 3}, {"up", Split::kColumn, 1}},
    {"key", {2, 3}, {"key", Split::kColumn, 2}},  // on two ranks the same unit
    {"down", {3, 8}, {"down", Split::kRow, 1}},
    {"frozen", {5}, {"frozen"}},
    {"norm", {3}, {"norm"}},
};

at::Tensor Draw(const std::string& what, const std::vector<int64_t>& shape) {
  at::Tensor x = at::zeros(shape, at::kDouble);
  auto* values = x.mutable_data_ptr<double>();
  for (int64_t i = 0; i < x.numel(); ++i)
    values[i] = PhiloxNormal(PhiloxKey(7, what), static_cast<uint64_t>(i));
  return x.to(at::kFloat);
}

struct Layout {
  MeshShape mesh;
  ZeroLevel zero = ZeroLevel::kOptimizer;
  StatePlace state = StatePlace::kWithParameters;
};
int RanksOf(const Layout& layout) {
  int ranks = 1;
  for (const int size : layout.mesh.sizes) ranks *= size;
  return ranks;
}

// One rank's parameters and optimizer. With a pipeline the first stage has the first three slots,
// the last one the rest and the first.
class TestRank {
 public:
  TestRank(const Layout& layout, at::ScalarType dtype, Communicator& world)
      : mesh(*Mesh::Create(layout.mesh, world)) {
    PlacementRules rules;
    for (const Declared& one : kDeclared) {
      store.Declare(one.name, one.shape);
      rules.push_back(one.rule);
    }
    store.slot(4).trainable = false;
    StoreLayout own = LayoutOf(mesh, rules, layout.zero);
    if (layout.mesh.size(Axis::kPipeline) == 2) {
      own.stage = mesh.comm(Axis::kPipeline).rank() == 0 ? std::vector<int64_t>{0, 1, 2}
                                                         : std::vector<int64_t>{0, 3, 4, 5};
    }
    store.LayOut(own);
    for (size_t i = 0; i < kDeclared.size(); ++i) store.Allocate(static_cast<int64_t>(i), dtype);
    for (ParameterSlot& slot : store.slots()) {
      if (slot.present) slot.piece.zero_();
    }
    optimizer =
        std::make_unique<AdamW>(store, AdamWOptions{.state = layout.state},
                                std::vector<ParameterGroup>{{1, 0.1, {0, 2, 3}}, {2, 0, {1, 5}}});
    state = std::make_unique<ShardedState>(store, *optimizer, mesh);
  }

  // Values drawn by name and element, as any layout would come to them.
  void Train() {
    for (size_t i = 0; i < kDeclared.size(); ++i) {
      if (store.slots()[i].present) TakeDrawn("", static_cast<int64_t>(i), store.slots()[i].piece);
    }
    for (AdamW::Moments& one : optimizer->moments()) {
      if (optimizer->HasWideMaster(one)) TakeDrawn("master", one.slot, one.master);
      TakeDrawn("exp_avg", one.slot, one.exp_avg);
      TakeDrawn("exp_avg_sq", one.slot, one.exp_avg_sq);
    }
    optimizer->StateLoaded();
  }
  void TakeDrawn(const std::string& what, int64_t index, const at::Tensor& piece) {
    const ParameterSlot& slot = store.slot(index);
    TakePart(Draw(what + slot.name, slot.shape), slot.slice, store.PieceBegin(index), piece);
  }

  // The files of all ranks, each element in one of them.
  absl::Status Save(Fs& fs, const std::string& directory) {
    CheckpointStore checkpoints(fs, directory, 0);
    CheckpointSaver saver(checkpoints, mesh.world(), SaveMode::kBackground);
    OSLER_RETURN_IF_ERROR(saver.Save(3, state->ToSave(), std::nullopt));
    return saver.Settle();
  }

  absl::Status Load(Fs& fs, const std::string& directory) {
    CheckpointState entries = state->ToLoad();
    OSLER_RETURN_IF_ERROR(CheckpointStore(fs, directory, 0).Load(3, entries));
    optimizer->StateLoaded();
    return absl::OkStatus();
  }

  Mesh mesh;
  ParameterStore store;
  std::unique_ptr<AdamW> optimizer;
  std::unique_ptr<ShardedState> state;
};

const std::vector<Layout> kLayouts = {
    {{{1, 1, 1, 1, 1}}},
    {{{1, 2, 1, 1, 1}}},
    {{{1, 1, 2, 1, 1}}, ZeroLevel::kOptimizer},
    {{{1, 1, 3, 1, 1}}, ZeroLevel::kGradients},
    {{{1, 1, 2, 1, 2}}, ZeroLevel::kParameters},
    {{{1, 2, 1, 2, 2}}},
    {{{2, 1, 2, 1, 1}}, ZeroLevel::kParameters},
    {{{2, 1, 1, 1, 2}}},
    {{{1, 1, 2, 1, 1}}, ZeroLevel::kParameters, StatePlace::kCpu},
};

class ShardedStateTest : public ::testing::TestWithParam<at::ScalarType> {};

// Bytes that the ranks' files have, and the most that one rank's have.
std::pair<int64_t, int64_t> Written(Fs& fs, const std::string& directory, int ranks) {
  std::vector<int64_t> bytes(static_cast<size_t>(ranks));
  const auto reader = CheckpointReader::Open(fs, JoinPath(directory, "step-3"), 3);
  EXPECT_THAT(reader.status(), IsOk());
  for (const auto& [group, tensors] : reader->groups()) {
    for (const auto& [name, stored] : tensors) {
      for (const auto& piece : stored.pieces) {
        const std::string& file = reader->manifest().files[piece.file].name;
        const size_t at = file.find(".rank");
        const int rank = at == std::string::npos ? 0 : std::stoi(file.substr(at + 5));
        bytes[static_cast<size_t>(rank)] += piece.part.count * (stored.dtype == "BF16" ? 2 : 4);
      }
    }
  }
  return {std::accumulate(bytes.begin(), bytes.end(), int64_t{0}),
          *std::max_element(bytes.begin(), bytes.end())};
}

TEST_P(ShardedStateTest, EveryLayoutLoadsWhatAnyHasSaved) {
  const auto fs = MakePosixFs();
  std::vector<TempDir> saved(kLayouts.size());
  int64_t all_bytes = 0;
  for (size_t i = 0; i < kLayouts.size(); ++i) {
    const auto statuses = RunRanks(RanksOf(kLayouts[i]), [&](Communicator& world) -> absl::Status {
      TestRank trained(kLayouts[i], GetParam(), world);
      trained.Train();
      return trained.Save(*fs, saved[i].path());
    });
    for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
    const auto [bytes, most] = Written(*fs, saved[i].path(), RanksOf(kLayouts[i]));
    if (i == 0) all_bytes = bytes;
    EXPECT_EQ(bytes, all_bytes) << "nothing is written twice";
    // The largest tensor cannot be split among ranks that have the same of it.
    EXPECT_LE(most, all_bytes / RanksOf(kLayouts[i]) + 6 * 40) << i;
  }
  for (const Layout& layout : kLayouts) {
    SCOPED_TRACE(::testing::PrintToString(layout.mesh.sizes));
    const auto statuses = RunRanks(RanksOf(layout), [&](Communicator& world) -> absl::Status {
      TestRank trained(layout, GetParam(), world);
      trained.Train();
      for (const TempDir& directory : saved) {
        TestRank loaded(layout, GetParam(), world);
        OSLER_RETURN_IF_ERROR(loaded.Load(*fs, directory.path()));
        for (size_t i = 0; i < kDeclared.size(); ++i) {
          const ParameterSlot &a = trained.store.slots()[i], &b = loaded.store.slots()[i];
          EXPECT_TRUE(!a.present || at::equal(a.piece, b.piece)) << a.name;
        }
        auto &x = trained.optimizer->moments(), &y = loaded.optimizer->moments();
        for (size_t i = 0; i < x.size(); ++i) {
          EXPECT_TRUE(at::equal(x[i].master, y[i].master)) << i;
          EXPECT_TRUE(at::equal(x[i].exp_avg, y[i].exp_avg)) << i;
          EXPECT_TRUE(at::equal(x[i].exp_avg_sq, y[i].exp_avg_sq)) << i;
        }
      }
      return absl::OkStatus();
    });
    for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ShardedStateTest, ::testing::Values(at::kFloat, at::kBFloat16));

// Below ZeRO 3 the whole slices are loaded, not the own pieces of them.
TEST(ShardedStateLoadTest, WholeSlicesAreLoaded) {
  const auto fs = MakePosixFs();
  TempDir saved;
  const Layout layout{{{1, 1, 2, 1, 2}}, ZeroLevel::kGradients};
  const auto statuses = RunRanks(4, [&](Communicator& world) -> absl::Status {
    TestRank trained(layout, at::kFloat, world), loaded(layout, at::kFloat, world);
    trained.Train();
    OSLER_RETURN_IF_ERROR(trained.Save(*fs, saved.path()));
    OSLER_RETURN_IF_ERROR(loaded.Load(*fs, saved.path()));
    for (const ParameterSlot& slot : loaded.store.slots()) {
      const at::Tensor whole = Draw(slot.name, slot.shape);
      EXPECT_TRUE(at::equal(slot.local, Narrow(whole, slot.slice))) << slot.name;
    }
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
}

// One rank's disk is full: all get its error, as one of a full disk, and nothing stays.
TEST(ShardedStateFailureTest, AFullDiskOfOneRankIsKnownToAll) {
  const auto posix = MakePosixFs();
  const auto fs = MakeFaultFs(*posix, "write:optimizer.rank2@2=ENOSPC");
  ASSERT_THAT(fs.status(), IsOk());
  TempDir directory;
  const Layout layout{{{1, 1, 2, 1, 2}}, ZeroLevel::kParameters};
  const auto statuses = RunRanks(4, [&](Communicator& world) -> absl::Status {
    TestRank run(layout, at::kFloat, world);
    run.Train();
    return run.Save(**fs, directory.path());
  });
  for (const absl::Status& status : statuses) {
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("optimizer.rank2.safetensors"));
    EXPECT_TRUE(absl::IsResourceExhausted(status));
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kCheckpoint);
  }
  EXPECT_THAT(posix->List(directory.path()).value(), ::testing::IsEmpty());
}

// What is saved is what was there when Save was called, whatever becomes of it meanwhile.
TEST(ShardedStateFailureTest, WhatIsSavedIsACopy) {
  const auto fs = MakePosixFs();
  TempDir directory;
  const Layout layout{{{1, 2, 1, 1, 1}}};
  const auto statuses = RunRanks(2, [&](Communicator& world) -> absl::Status {
    TestRank trained(layout, at::kFloat, world), loaded(layout, at::kFloat, world);
    trained.Train();
    CheckpointStore checkpoints(*fs, directory.path(), 0);
    CheckpointSaver saver(checkpoints, trained.mesh.world(), SaveMode::kBackground);
    OSLER_RETURN_IF_ERROR(saver.Save(3, trained.state->ToSave(), std::nullopt));
    for (ParameterSlot& slot : trained.store.slots()) slot.piece.zero_();
    OSLER_RETURN_IF_ERROR(saver.Settle());
    OSLER_RETURN_IF_ERROR(loaded.Load(*fs, directory.path()));
    for (const ParameterSlot& slot : loaded.store.slots())
      EXPECT_TRUE(at::equal(slot.local, Draw(slot.name, slot.shape))) << slot.name;
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
}

}  // namespace
}  // namespace osler
