// Checkpoints do not depend on the layout: the same files from any, and any loads them.
#include "trainer/sharded_state.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/errors.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "model/parameter_part.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "tests/testing/temp_dir.h"

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

  absl::Status Save(Fs& fs, const std::string& directory) {
    return state->SaveOnFirst([&] {
      CheckpointStore checkpoints(fs, directory, 0);
      return checkpoints.Save(3, state->Entries());
    });
  }

  absl::Status Load(Fs& fs, const std::string& directory) {
    CheckpointState entries = state->Entries();
    OSLER_RETURN_IF_ERROR(CheckpointStore(fs, directory, 0).Load(3, entries));
    optimizer->StateLoaded();
    return absl::OkStatus();
  }

  Mesh mesh;
  ParameterStore store;
  std::unique_ptr<AdamW> optimizer;
  std::unique_ptr<ShardedState> state;
};

std::string Content(Fs& fs, const std::string& directory, const char* file) {
  const auto text = fs.ReadFile(JoinPath(directory, std::string("step-3/") + file));
  EXPECT_THAT(text.status(), IsOk());
  return text.ok() ? *text : "";
}

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

TEST_P(ShardedStateTest, SameFilesFromEveryLayoutAndEveryLayoutLoadsThem) {
  const auto fs = MakePosixFs();
  TempDir one;
  for (const Layout& layout : kLayouts) {
    SCOPED_TRACE(::testing::PrintToString(layout.mesh.sizes));
    TempDir saved;
    const std::string directory =
        layout.mesh.sizes == kLayouts[0].mesh.sizes ? one.path() : saved.path();
    const auto statuses = RunRanks(RanksOf(layout), [&](Communicator& world) -> absl::Status {
      TestRank trained(layout, GetParam(), world);
      trained.Train();
      OSLER_RETURN_IF_ERROR(trained.Save(*fs, directory));
      TestRank loaded(layout, GetParam(), world);
      OSLER_RETURN_IF_ERROR(loaded.Load(*fs, one.path()));
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
      return absl::OkStatus();
    });
    for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
    for (const char* file : {"weights.safetensors", "optimizer.safetensors", "manifest.json"}) {
      EXPECT_TRUE(Content(*fs, directory, file) == Content(*fs, one.path(), file)) << file;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ShardedStateTest, ::testing::Values(at::kFloat, at::kBFloat16));

// The first rank's disk fails while the others serve it: all get its error and none waits.
TEST(ShardedStateFailureTest, AnErrorInTheMiddleKeepsNobodyWaiting) {
  const auto posix = MakePosixFs();
  const auto fs = MakeFaultFs(*posix, "write:optimizer@3=ENOSPC");
  ASSERT_THAT(fs.status(), IsOk());
  TempDir directory;
  const Layout layout{{{1, 1, 2, 1, 2}}, ZeroLevel::kParameters};
  const auto statuses = RunRanks(4, [&](Communicator& world) -> absl::Status {
    TestRank run(layout, at::kFloat, world);
    run.Train();
    return run.Save(**fs, directory.path());
  });
  for (const absl::Status& status : statuses) {
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("optimizer.safetensors"));
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kCheckpoint);
  }
}

}  // namespace
}  // namespace osler
