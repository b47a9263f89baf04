// The launch table: environments as launchers really make them, and what must be read from each.
#include "parallel/launch.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::testing::AllOf;
using testing::Fails;
using ::testing::HasSubstr;
using Environment = std::map<std::string, std::string>;

absl::StatusOr<LaunchInfo> Detect(const Environment& environment) {
  return DetectLaunchFrom([&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

void ExpectLaunch(const Environment& environment, const LaunchInfo& expected) {
  ASSERT_OK_AND_ASSIGN(const LaunchInfo info, Detect(environment));
  EXPECT_EQ(info.launcher, expected.launcher);
  EXPECT_EQ(info.rank, expected.rank);
  EXPECT_EQ(info.world_size, expected.world_size);
  EXPECT_EQ(info.local_rank, expected.local_rank);
  EXPECT_EQ(info.local_size, expected.local_size);
}

const Environment kMpirun = {{"OMPI_COMM_WORLD_RANK", "5"},
                             {"OMPI_COMM_WORLD_SIZE", "8"},
                             {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                             {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                             {"PMIX_RANK", "5"}};

TEST(Launch, NothingSetIsAlone) { ExpectLaunch({}, {0, 1, 0, 1, "alone"}); }

TEST(Launch, MpirunIsRead) { ExpectLaunch(kMpirun, {5, 8, 1, 4, "Open MPI"}); }

TEST(Launch, MpirunWinsOverSlurmAndTorchrun) {
  Environment environment = kMpirun;  // salloc + mpirun: SLURM_PROCID belongs to the daemon
  environment.insert(
      {{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}});
  environment.insert({{"RANK", "0"}, {"WORLD_SIZE", "2"}});
  ExpectLaunch(environment, {5, 8, 1, 4, "Open MPI"});
}

TEST(Launch, SrunWithPmixIsRead) {
  ExpectLaunch({{"PMIX_RANK", "3"},
                {"SLURM_STEP_ID", "0"},
                {"SLURM_PROCID", "3"},
                {"SLURM_STEP_NUM_TASKS", "5"},
                {"SLURM_LOCALID", "1"},
                {"SLURM_NODEID", "1"},
                {"SLURM_STEP_TASKS_PER_NODE", "2(x2),1"}},
               {3, 5, 1, 2, "Slurm"});
}

TEST(Launch, BatchScriptWithoutSrunIsAlone) {
  ExpectLaunch({{"SLURM_JOB_ID", "9"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}},
               {0, 1, 0, 1, "alone"});
}

TEST(Launch, SrunWithoutPmixIsRefused) {
  EXPECT_THAT(
      Detect({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "4"}}),
      Fails(ExitCode::kDevice, HasSubstr("srun --mpi=pmix -n 4")));
}

TEST(Launch, HydraIsRead) {
  ExpectLaunch(
      {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}},
      {1, 2, 1, 2, "PMI"});
}

TEST(Launch, TorchrunIsRefusedUnlessOfOne) {
  EXPECT_THAT(Detect({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "1"}}),
              Fails(ExitCode::kDevice, AllOf(HasSubstr("RANK=1"), HasSubstr("WORLD_SIZE=2"),
                                             HasSubstr("mpirun -n 2"))));
  ExpectLaunch({{"RANK", "0"}, {"WORLD_SIZE", "1"}}, {0, 1, 0, 1, "alone"});
}

TEST(Launch, NonsenseIsRefusedByName) {
  EXPECT_THAT(Detect({{"OMPI_COMM_WORLD_RANK", "two"}, {"OMPI_COMM_WORLD_SIZE", "2"}}),
              Fails(ExitCode::kDevice, HasSubstr("OMPI_COMM_WORLD_RANK=two")));
  EXPECT_THAT(Detect({{"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_SIZE", "2"}}),
              Fails(ExitCode::kDevice, HasSubstr("does not fit")));
  EXPECT_THAT(Detect({{"PMIX_RANK", "0"}}), Fails(ExitCode::kDevice, HasSubstr("PMIX_SIZE")));
}

TEST(Launch, AloneConnectsToAGroupOfOne) {
  ASSERT_OK_AND_ASSIGN(const LaunchInfo info, Detect({}));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Communicator> world, ConnectWorld(info));
  EXPECT_EQ(world->size(), 1);
  EXPECT_EQ(world->backend(), "single");
}

}  // namespace
}  // namespace osler
