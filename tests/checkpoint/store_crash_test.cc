// Whatever stops a save, the newest good checkpoint afterwards is the old one or the new one,
// whole.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <random>

#include "checkpoint/store.h"
#include "tests/testing/matchers.h"
#include "tests/testing/power_loss_fs.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::TempDir;

constexpr int64_t kWidth =
    700'000;  // floats: two parts and a bit, so that a kill can hit the middle of a tensor

CheckpointState MakeState(double value, int64_t width) {
  CheckpointState state;
  state.tensors = {{"weights", "w", at::full({width}, value, at::kFloat)},
                   {"optimizer", "w.m", at::full({8}, value, at::kFloat)}};
  state.texts = {{"cursor.json", fmt::format("{}\n", value)}};
  return state;
}

// The step's content is whole and is that of `value`.
void ExpectWhole(const CheckpointStore& store, int64_t step, double value, int64_t width) {
  CheckpointState loaded = MakeState(0, width);
  ASSERT_THAT(store.Load(step, loaded), IsOk());
  EXPECT_TRUE(at::equal(loaded.tensors[0].tensor, at::full({width}, value, at::kFloat)));
  EXPECT_EQ(loaded.texts.at("cursor.json"), fmt::format("{}\n", value));
}

std::vector<std::string> NamesIn(Fs& fs, const std::string& directory) {
  auto names = fs.List(directory);
  EXPECT_THAT(names, IsOk());
  return names.ok() ? *std::move(names) : std::vector<std::string>();
}

void ExpectAllGood(const CheckpointStore& store) {
  const auto steps = store.Steps();
  ASSERT_THAT(steps, IsOk());
  for (const int64_t step : *steps) EXPECT_THAT(store.Verify(step), IsOk()) << step;
}

class CrashTest : public ::testing::TestWithParam<const char*> {
 protected:
  // Saves in a child, because failpoints are armed once in a process and end it. Returns the
  // signal, 0 for a good save.
  int SaveInChild(int64_t step, double value, const char* failpoint) {
    const CheckpointState state =
        MakeState(value, kWidth);  // OpenMP's threads do not exist in the child
    const pid_t child = fork();
    if (child == 0) {
      if (failpoint != nullptr)
        setenv("OSLER_FAILPOINTS", fmt::format("{}=kill", failpoint).c_str(), 1);
      CheckpointStore store(*fs_, root_, 2);
      _exit(store.Save(step, state).ok() ? 0 : 1);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }

  TempDir directory_;
  const std::string root_ = directory_.File("checkpoints");
  std::unique_ptr<Fs> fs_ = MakePosixFs();
};

TEST_P(CrashTest, KilledSaveOfANewStep) {
  const std::string phase = GetParam();
  ASSERT_EQ(SaveInChild(5, 5, nullptr), 0);
  ASSERT_EQ(SaveInChild(6, 6, nullptr), 0);
  ASSERT_EQ(SaveInChild(7, 7, GetParam()), SIGKILL);
  CheckpointStore store(*fs_, root_, 2);
  const bool published = phase == "latest" || phase == "retention";
  const int64_t expected = published ? 7 : 6;
  EXPECT_EQ(store.NewestGood().value(), expected);
  ExpectWhole(store, expected, static_cast<double>(expected), kWidth);
  ExpectAllGood(store);
  ASSERT_THAT(store.CleanUp(), IsOk());
  for (const std::string& name : NamesIn(*fs_, root_))
    EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
  EXPECT_EQ(store.NewestGood().value(), expected);
  ASSERT_EQ(SaveInChild(8, 8, nullptr), 0);  // and the next save works
  EXPECT_THAT(store.Steps().value(), ::testing::ElementsAre(expected, 8));
}

TEST_P(CrashTest, KilledReplacementOfTheOnlyStep) {
  const std::string phase = GetParam();
  ASSERT_EQ(SaveInChild(5, 1, nullptr), 0);
  ASSERT_EQ(SaveInChild(5, 2, GetParam()), SIGKILL);
  CheckpointStore store(*fs_, root_, 2);
  ASSERT_THAT(store.CleanUp(), IsOk());
  EXPECT_EQ(store.NewestGood().value(), 5);
  ExpectWhole(store, 5, phase == "latest" || phase == "retention" ? 2 : 1, kWidth);
}

TEST_P(CrashTest, LeavesWhatThePhaseImplies) {
  const std::string phase = GetParam();
  ASSERT_EQ(SaveInChild(5, 5, nullptr), 0);
  ASSERT_EQ(SaveInChild(6, 6, nullptr), 0);
  ASSERT_EQ(SaveInChild(7, 7, GetParam()), SIGKILL);
  std::string temporary;
  for (const std::string& name : NamesIn(*fs_, root_)) {
    if (name.rfind("step-7.tmp-", 0) == 0) temporary = JoinPath(root_, name);
  }
  const auto size = [&](const std::string& name) {
    return fs_->Size(JoinPath(temporary, name)).value_or(-1);
  };
  const std::string whole = JoinPath(root_, "step-6");
  const int64_t full = fs_->Size(JoinPath(whole, "weights.safetensors")).value_or(-1);
  const int64_t manifest = fs_->Size(JoinPath(whole, "manifest.json")).value();
  if (phase == "staging") {
    EXPECT_TRUE(NamesIn(*fs_, temporary).empty());
  }
  if (phase == "shard_write") {
    EXPECT_GT(size("weights.safetensors"), 0);
    EXPECT_LT(size("weights.safetensors"), full);
  }
  if (phase == "manifest") {
    EXPECT_EQ(size("weights.safetensors"), full);
    EXPECT_LT(size("manifest.json"), manifest);
  }
  if (phase == "rename") {
    EXPECT_EQ(size("manifest.json"), manifest);
  }
  const std::string latest = fs_->ReadFile(JoinPath(root_, "latest")).value();
  EXPECT_EQ(latest, phase == "retention" ? "step-7\n" : "step-6\n");
  EXPECT_EQ(fs_->Exists(JoinPath(root_, "step-5")), phase != "retention");
}

INSTANTIATE_TEST_SUITE_P(Phases, CrashTest,
                         ::testing::Values("staging", "shard_write", "manifest", "rename", "latest",
                                           "retention"),
                         [](const auto& info) { return std::string(info.param); });

// Fails the n-th write, sync or rename of a save, for every n until the save no longer meets the
// fault.
struct FaultCase {
  const char *op, *error;
  bool replace;
};
class FaultTest : public ::testing::TestWithParam<FaultCase> {};

TEST_P(FaultTest, AnyFaultLeavesTheOldOrTheNew) {
  const auto [op, error, replace] = GetParam();
  const std::unique_ptr<Fs> posix = MakePosixFs();
  const int64_t next = replace ? 6 : 7;
  int faults = 0;
  for (int call = 1;; ++call) {
    TempDir directory;
    const std::string root = directory.File("checkpoints");
    CheckpointStore good(*posix, root, 2);
    ASSERT_THAT(good.Save(5, MakeState(5, 16)), IsOk());
    ASSERT_THAT(good.Save(6, MakeState(6, 16)), IsOk());
    ASSERT_OK_AND_ASSIGN(const auto faulty,
                         MakeFaultFs(*posix, fmt::format("{}:@{}={}", op, call, error)));
    ::testing::internal::CaptureStderr();
    const absl::Status status = CheckpointStore(*faulty, root, 2).Save(next, MakeState(70, 16));
    const std::string warnings = ::testing::internal::GetCapturedStderr();
    if (!status.ok()) {
      EXPECT_THAT(status, Fails(ExitCode::kCheckpoint, HasSubstr(fmt::format("step-{}", next))));
      const bool full = status.code() == absl::StatusCode::kResourceExhausted;
      EXPECT_EQ(full, std::string(error) == "ENOSPC") << status;
    }
    ASSERT_OK_AND_ASSIGN(const std::optional<int64_t> newest, good.NewestGood());
    ASSERT_TRUE(newest == 6 || newest == next) << call;
    if (status.ok()) {
      EXPECT_EQ(newest, next);
    }
    CheckpointState loaded = MakeState(0, 16);
    ASSERT_THAT(good.Load(*newest, loaded), IsOk());
    const std::string cursor = loaded.texts.at("cursor.json");
    EXPECT_TRUE(cursor == "70\n" || (cursor == "6\n" && !status.ok())) << call << " " << cursor;
    ExpectAllGood(good);
    for (const std::string& name : NamesIn(*posix, root)) {
      const bool removed = name.find(".tmp-removed-") != std::string::npos;
      EXPECT_TRUE(removed || name.find(".tmp") == std::string::npos) << name << " at call " << call;
    }
    ASSERT_THAT(good.Save(9, MakeState(9, 16)), IsOk()) << "the next save works";
    if (status.ok() && warnings.empty()) break;
    ++faults;
  }
  EXPECT_GE(faults, std::string(op) == "rename" ? 2 : 5);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, FaultTest,
    ::testing::Values(FaultCase{"write", "ENOSPC", false}, FaultCase{"write", "ENOSPC", true},
                      FaultCase{"sync", "EIO", false}, FaultCase{"sync", "ENOSPC", true},
                      FaultCase{"rename", "EIO", false}, FaultCase{"rename", "EIO", true}),
    [](const auto& info) {
      return fmt::format("{}_{}_{}", info.param.op, info.param.error,
                         info.param.replace ? "replace" : "new");
    });

// The power goes after every single change that a save makes, and with it what was not synced: all
// of it, none of it, or some.
class PowerLossTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(PowerLossTest, TheOldOrTheNew) {
  const int64_t next = GetParam();
  const std::unique_ptr<Fs> posix = MakePosixFs();
  std::mt19937 random(3);
  const std::function<int64_t(int64_t)> draws[] = {
      [](int64_t) { return 0; }, [](int64_t n) { return n; },
      [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n + 1)); }};
  int losses = 0;
  bool finished = false;
  for (int64_t changes = 0; !finished; ++changes) {
    for (const auto& keep : draws) {
      TempDir directory, trash;
      const std::string root = directory.File("checkpoints");
      CheckpointStore good(*posix, root, 2);
      ASSERT_THAT(good.Save(5, MakeState(5, 16)), IsOk());
      ASSERT_THAT(good.Save(6, MakeState(6, 16)), IsOk());
      testing::PowerLossFs fs(*posix, trash.path(), changes);
      ::testing::internal::CaptureStderr();
      const absl::Status saved = CheckpointStore(fs, root, 2).Save(next, MakeState(70, 16));
      ::testing::internal::GetCapturedStderr();
      finished = !fs.power_is_gone();
      fs.Lose(keep);
      losses += saved.ok() ? 0 : 1;
      CheckpointStore after(*posix, root, 2);
      ASSERT_THAT(after.CleanUp(), IsOk());
      ::testing::internal::CaptureStderr();
      const auto newest = after.NewestGood();
      ASSERT_EQ(::testing::internal::GetCapturedStderr(), "") << "nothing is damaged";
      ASSERT_THAT(newest.status(), IsOk()) << changes;
      ASSERT_TRUE(*newest == 6 || *newest == next) << changes;
      CheckpointState loaded = MakeState(0, 16);
      ASSERT_THAT(after.Load(**newest, loaded), IsOk());
      const std::string cursor = loaded.texts.at("cursor.json");
      EXPECT_TRUE(cursor == "70\n" || (cursor == "6\n" && !saved.ok())) << changes << cursor;
      ExpectAllGood(after);
      ASSERT_THAT(after.Save(9, MakeState(9, 16)), IsOk());
    }
  }
  EXPECT_GE(losses, 60);
}

INSTANTIATE_TEST_SUITE_P(NewAndReplaced, PowerLossTest, ::testing::Values(7, 6));

}  // namespace
}  // namespace osler
