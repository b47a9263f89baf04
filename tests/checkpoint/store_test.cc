#include "checkpoint/store.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "tests/checkpoint/store_testing.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;

TEST_F(StoreTest, SaveThenLoadGivesTheSameState) {
  EXPECT_THAT(Store().Steps().value(), ElementsAre());
  EXPECT_EQ(Store().NewestGood().value(), std::nullopt);
  SaveSteps({5});
  EXPECT_THAT(Names(), ElementsAre("latest", "step-5"));
  EXPECT_EQ(fs_->ReadFile(JoinPath(root_, "latest")).value(), "step-5\n");
  EXPECT_THAT(fs_->List(Store().StepDirectory(5)).value(),
              ElementsAre("config.resolved.yaml", "cursor.json", "manifest.json",
                          "optimizer.safetensors", "weights.safetensors"));
  CheckpointState loaded = Blank();
  ASSERT_THAT(Store().Load(5, loaded), IsOk());
  EXPECT_TRUE(Same(loaded, MakeState(5)));
  EXPECT_EQ(Store().NewestGood().value(), 5);
  ASSERT_OK_AND_ASSIGN(const CheckpointReport report, Store().Verify(5));
  EXPECT_EQ(report.tensors, 4);
  EXPECT_EQ(report.files.size(), 5u);
  int64_t bytes = 0;
  for (const std::string& name : report.files) bytes += fs_->Size(File(5, name)).value();
  EXPECT_EQ(report.bytes, bytes);
}

TEST_F(StoreTest, LoadsOnlyTheFilesItIsAskedFor) {
  SaveSteps({5});
  CheckpointState weights;
  weights.tensors = {{"weights", "embed", at::zeros({4, 3})},
                     {"weights", "norm", at::zeros({3}, at::kBFloat16)}};
  ASSERT_THAT(Store().Load(5, weights), IsOk());
  EXPECT_TRUE(at::equal(weights.tensors[0].tensor, at::full({4, 3}, 5, at::kFloat)));
}

// Three ranks write a matrix cut by columns, a vector in flat pieces and a whole tensor; two that
// cut them otherwise, and one, load them.
TEST_F(StoreTest, PartsOfSeveralRanks) {
  const at::Tensor matrix = at::arange(24, at::kFloat).view({4, 6}),
                   vector = at::arange(7, at::kFloat);
  const auto part = [](const at::Tensor& whole, TensorSlice slice, int64_t begin, int64_t count) {
    const TensorPart one{whole.sizes().vec(), slice, begin, count};
    const at::Tensor x = at::full({count + 2}, -1, at::kFloat);  // padding after it
    const TensorPart all = WholeTensor(one.shape);
    CopyOverlap(all, static_cast<const char*>(whole.const_data_ptr()), one,
                static_cast<char*>(x.mutable_data_ptr()), 4);
    return std::pair(x, one);
  };
  const auto state_of = [&](int rank, int ranks) {
    CheckpointState state = MakeState(5);
    for (StateEntry& entry : state.tensors) entry.written = rank == 0;
    const int64_t columns = 6 / ranks, each = (7 + ranks - 1) / ranks;
    auto [m, m_part] = part(matrix, {1, rank * columns, columns}, 0, 4 * columns);
    state.tensors.push_back({"weights", "matrix", m, m_part});
    const int64_t begin = std::min<int64_t>(7, rank * each);
    auto [v, v_part] = part(vector, {0, 0, 7}, begin, std::min(each, 7 - begin));
    state.tensors.push_back({"optimizer", "vector", v, v_part});
    return state;
  };
  CheckpointStore store = Store();
  const std::string temporary = store.TemporaryDirectory(9, 1);
  std::vector<ManifestFile> files;
  ASSERT_THAT(store.Begin(temporary, CheckpointBytes(state_of(0, 3))), IsOk());
  for (const int rank : {0, 1, 2}) {
    ASSERT_OK_AND_ASSIGN(const auto written,
                         store.WriteRank(temporary, {rank, 3}, state_of(rank, 3)));
    EXPECT_EQ(written.size(), 2U);
    files.insert(files.end(), written.begin(), written.end());
  }
  ASSERT_THAT(store.Commit(temporary, 9, files, MakeState(5).texts), IsOk());
  EXPECT_THAT(fs_->List(store.StepDirectory(9)).value(),
              ::testing::Contains("weights.rank2.safetensors"));
  ASSERT_OK_AND_ASSIGN(const CheckpointReport report, store.Verify(9));
  EXPECT_EQ(report.tensors, 6);
  for (const int ranks : {1, 2, 3}) {
    for (int rank = 0; rank < ranks; ++rank) {
      const CheckpointState want = state_of(rank, ranks);
      CheckpointState loaded = state_of(rank, ranks);
      for (StateEntry& entry : loaded.tensors) entry.tensor = at::full_like(entry.tensor, -1);
      ASSERT_THAT(store.Load(9, loaded), IsOk());
      EXPECT_TRUE(Same(loaded, want)) << rank << " of " << ranks;
    }
  }
  ASSERT_THAT(fs_->Remove(File(9, "optimizer.rank1.safetensors")), IsOk());
  EXPECT_THAT(store.Verify(9),
              Fails(ExitCode::kCheckpoint, HasSubstr("optimizer.rank1.safetensors: is missing")));
}

// A manifest that leaves a rank's file out is whole by its own digest, and refused all the same.
TEST_F(StoreTest, PartsThatDoNotMakeUpTheirTensor) {
  CheckpointStore store = Store();
  const std::string temporary = store.TemporaryDirectory(9, 1);
  ASSERT_THAT(store.Begin(temporary, 0), IsOk());
  CheckpointState state;
  for (const int rank : {0, 1}) {
    state.tensors = {{"weights", "w", at::zeros({2}), TensorPart{{4}, {0, 0, 4}, rank * 2, 2}}};
    ASSERT_OK_AND_ASSIGN(const auto files, store.WriteRank(temporary, {rank, 2}, state));
    if (rank == 1) {
      ASSERT_THAT(store.Commit(temporary, 9, files, {}), IsOk());
    }
  }
  EXPECT_THAT(store.Verify(9), Fails(ExitCode::kCheckpoint, HasSubstr("do not make it up")));
  EXPECT_THAT(store.Load(9, state), Fails(ExitCode::kCheckpoint, HasSubstr("do not make it up")));
}

TEST_F(StoreTest, LoadWantsTheSameNamesShapesAndTypes) {
  SaveSteps({5});
  const auto load = [&](const auto& change) {
    CheckpointState state = Blank();
    change(state);
    return Store().Load(5, state);
  };
  EXPECT_THAT(load([](auto& s) {
                s.tensors[0].tensor = at::zeros({3, 4});
              }),
              Fails(ExitCode::kCheckpoint,
                    AllOf(HasSubstr("'embed'"), HasSubstr("[4, 3]"), HasSubstr("[3, 4]"))));
  EXPECT_THAT(load([](auto& s) { s.tensors[1].tensor = at::zeros({3}); }),
              Fails(ExitCode::kCheckpoint,
                    AllOf(HasSubstr("'norm'"), HasSubstr("BF16"), HasSubstr("F32"))));
  EXPECT_THAT(load([](auto& s) { s.tensors[0].name = "other"; }),
              Fails(ExitCode::kCheckpoint, HasSubstr("'other'")));
  EXPECT_THAT(load([](auto& s) { s.tensors.erase(s.tensors.begin()); }),
              Fails(ExitCode::kCheckpoint, HasSubstr("'embed' is of no use")));
  EXPECT_THAT(load([](auto& s) { s.tensors[0].group = "ema"; }),
              Fails(ExitCode::kCheckpoint, HasSubstr("ema.safetensors")));
  EXPECT_THAT(load([](auto& s) { s.tensors.push_back(s.tensors[0]); }),
              Fails(ExitCode::kBug, HasSubstr("twice")));
}

TEST_F(StoreTest, FailedLoadLeavesTheStateAlone) {
  SaveSteps({5});
  CheckpointState state = Blank();
  state.texts = {{"mine", "kept"}};
  state.tensors[3].tensor = at::zeros({2}, at::kLong);  // the last one does not fit
  EXPECT_FALSE(Store().Load(5, state).ok());
  EXPECT_TRUE(at::equal(state.tensors[0].tensor, at::zeros({4, 3})));
  EXPECT_THAT(state.texts, ElementsAre(std::pair("mine", "kept")));
}

TEST_F(StoreTest, BadStatesAreOurBug) {
  const auto save = [&](const auto& change) {
    CheckpointState state = MakeState(1);
    change(state);
    return Store().Save(1, state);
  };
  EXPECT_THAT(save([](auto& s) {
                s.tensors[0].tensor = at::zeros({4, 4}).t();
              }),
              Fails(ExitCode::kBug, HasSubstr("'embed'")));
  EXPECT_THAT(save([](auto& s) { s.tensors[0].group = "../w"; }),
              Fails(ExitCode::kBug, HasSubstr("bad file")));
  EXPECT_THAT(save([](auto& s) { s.texts["manifest.json"] = ""; }),
              Fails(ExitCode::kBug, HasSubstr("bad file")));
  EXPECT_THAT(save([](auto& s) { s.texts["a/b"] = ""; }),
              Fails(ExitCode::kBug, HasSubstr("bad file")));
  EXPECT_FALSE(fs_->Exists(root_));
}

TEST_F(StoreTest, KeepsTheNewest) {
  SaveSteps({5, 10, 9, 20, 100}, 3);
  EXPECT_THAT(Store().Steps().value(), ElementsAre(10, 20, 100));
  EXPECT_THAT(Names(), ElementsAre("latest", "step-10", "step-100", "step-20"));
  SaveSteps({7}, 1);  // never the one just saved, even when others are newer
  EXPECT_THAT(Store().Steps().value(), ElementsAre(7, 100));
  SaveSteps({101, 102, 103}, 0);
  EXPECT_EQ(Store().Steps().value().size(), 5u);
}

TEST_F(StoreTest, SomeStepsStayForGood) {
  CheckpointStore store(*fs_, root_, 2, 10);
  for (const int64_t step : {5, 10, 15, 20, 25, 30, 35})
    ASSERT_THAT(store.Save(step, MakeState(1)), IsOk());
  EXPECT_THAT(store.Steps().value(), ElementsAre(10, 20, 30, 35));
}

TEST_F(StoreTest, TheBestIsNamedAndStays) {
  CheckpointStore store = Store(2);
  EXPECT_EQ(store.Best().value(), std::nullopt);
  const auto save = [&](int64_t step, int64_t best) {
    ASSERT_THAT(store.Save(step, MakeState(static_cast<double>(step)), best), IsOk());
  };
  save(1, 1);
  save(2, 2);
  for (const int64_t step : {3, 4, 5}) save(step, 2);
  EXPECT_THAT(Names(), ElementsAre("best", "latest", "step-2", "step-4", "step-5"));
  EXPECT_EQ(fs_->ReadFile(JoinPath(root_, "best")).value(), "step-2\n");
  EXPECT_EQ(store.Best().value(), 2);
  SaveSteps({6}, 2);  // without a word about the best
  EXPECT_THAT(store.Steps().value(), ElementsAre(2, 5, 6));
  save(7, 7);
  EXPECT_THAT(Names(), ElementsAre("best", "latest", "step-6", "step-7"));
}

TEST_F(StoreTest, MoveBestNamesOnlyWhatIsThere) {
  SaveSteps({5, 10});
  ASSERT_THAT(Store().MoveBest(7), IsOk());
  EXPECT_EQ(Store().Best().value(), std::nullopt);
  ASSERT_THAT(Store().MoveBest(5), IsOk());
  ASSERT_THAT(Store().MoveBest(7), IsOk());
  EXPECT_EQ(Store().Best().value(), 5);
  std::filesystem::remove_all(Store().StepDirectory(5));
  EXPECT_THAT(Store().Best(), Fails(ExitCode::kCheckpoint, HasSubstr("step-5")));
  Overwrite(JoinPath(root_, "best"), "../../etc/passwd");
  EXPECT_THAT(Store().Best(), Fails(ExitCode::kCheckpoint, HasSubstr("etc/passwd")));
  SaveSteps({20, 30}, 1);  // a wrong name does not stop retention
  EXPECT_THAT(Store().Steps().value(), ElementsAre(30));
  ASSERT_THAT(Store().MoveBest(30), IsOk());
  EXPECT_EQ(Store().Best().value(), 30);
}

TEST_F(StoreTest, SameStepIsReplaced) {
  SaveSteps({5});
  ASSERT_THAT(Store().Save(5, MakeState(55)), IsOk());
  EXPECT_THAT(Names(), ElementsAre("latest", "step-5"));
  CheckpointState loaded = Blank();
  ASSERT_THAT(Store().Load(5, loaded), IsOk());
  EXPECT_TRUE(Same(loaded, MakeState(55)));
}

TEST_F(StoreTest, OnlyFinishedNamesCount) {
  SaveSteps({5});
  for (const char* name : {"step-6.tmp-1", "step-7.bad", "step-08", "step-", "step-x", "step-9x",
                           "xstep-9", "step--1", "step-99999999999999999999"}) {
    ASSERT_THAT(fs_->MakeDirectories(JoinPath(root_, name)), IsOk());
  }
  ASSERT_THAT(WriteFileDurably(*fs_, JoinPath(root_, "step-50"), "a file"), IsOk());
  EXPECT_THAT(Store().Steps().value(), ElementsAre(5));
}

TEST_F(StoreTest, LatestMayBeMissingStaleOrNonsense) {
  SaveSteps({5, 10});
  const std::string latest = JoinPath(root_, "latest");
  Overwrite(latest, "step-5\n");
  EXPECT_EQ(Store().NewestGood().value(), 10);
  Overwrite(latest, "../../etc/passwd");
  EXPECT_EQ(Store().NewestGood().value(), 10);
  ASSERT_THAT(fs_->Remove(latest), IsOk());
  EXPECT_EQ(Store().NewestGood().value(), 10);
}

TEST_F(StoreTest, CleanUpRemovesLeftoversOnly) {
  SaveSteps({5});
  for (const char* name :
       {"step-6.tmp-77", "step-3.tmp-removed-7", "step-5.old-9", "mine.tmp-1", "step-4.bad"}) {
    ASSERT_THAT(fs_->MakeDirectories(JoinPath(root_, std::string(name) + "/sub")), IsOk());
  }
  Overwrite(JoinPath(root_, "latest.tmp"), "st");
  Overwrite(JoinPath(root_, "best.tmp"), "st");
  ASSERT_THAT(Store().CleanUp(), IsOk());
  EXPECT_THAT(Names(), ElementsAre("latest", "mine.tmp-1", "step-4.bad", "step-5"));
  EXPECT_THAT(CheckpointStore(*fs_, directory_.File("nowhere"), 3).CleanUp(), IsOk());
}

TEST_F(StoreTest, ReplacementThatDiedIsPutBack) {
  SaveSteps({5, 10});
  ASSERT_THAT(fs_->Rename(Store().StepDirectory(10), JoinPath(root_, "step-10.old-4")), IsOk());
  EXPECT_EQ(Store().NewestGood().value(), 10);
  ASSERT_THAT(fs_->Rename(Store().StepDirectory(10), JoinPath(root_, "step-10.old-4")), IsOk());
  ASSERT_THAT(Store().CleanUp(), IsOk());
  EXPECT_THAT(Names(), ElementsAre("latest", "step-10", "step-5"));
  EXPECT_THAT(Store().Verify(10), IsOk());
}

}  // namespace
}  // namespace osler
