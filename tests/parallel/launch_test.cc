// The launch table: environments as launchers really make them, and what must be read from each.
#include "parallel/launch.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "parallel/slurm.h"
#include "parallel/world.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::testing::AllOf;
using testing::Fails;
using ::testing::HasSubstr;
using Environment = std::map<std::string, std::string>;

absl::StatusOr<LaunchInfo> Detect(const Environment& environment, const LaunchFlags& flags = {}) {
  return DetectLaunchFrom(
      [&](const char* name) -> const char* {
        const auto found = environment.find(name);
        return found == environment.end() ? nullptr : found->second.c_str();
      },
      flags);
}

LaunchInfo OverTcp(LaunchInfo info, const std::string& host, int port,
                   const std::string& agent_key = "") {
  info.network = Network::kTcp;
  info.master = {host, port};
  info.agent_key = agent_key;
  return info;
}

void ExpectLaunch(const Environment& environment, const LaunchInfo& expected,
                  const LaunchFlags& flags = {}) {
  ASSERT_OK_AND_ASSIGN(const LaunchInfo info, Detect(environment, flags));
  EXPECT_EQ(info.launcher, expected.launcher);
  EXPECT_EQ(info.rank, expected.rank);
  EXPECT_EQ(info.world_size, expected.world_size);
  EXPECT_EQ(info.local_rank, expected.local_rank);
  EXPECT_EQ(info.local_size, expected.local_size);
  EXPECT_EQ(info.network, expected.network);
  EXPECT_EQ(info.master.host, expected.master.host);
  EXPECT_EQ(info.master.port, expected.master.port);
  EXPECT_EQ(info.agent_key, expected.agent_key);
}

const Environment kMpirun = {{"OMPI_COMM_WORLD_RANK", "5"},
                             {"OMPI_COMM_WORLD_SIZE", "8"},
                             {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                             {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                             {"PMIX_RANK", "5"}};

TEST(Launch, NothingSetIsAlone) { ExpectLaunch({}, {0, 1, 0, 1, "alone"}); }

TEST(Launch, MpirunIsRead) { ExpectLaunch(kMpirun, {5, 8, 1, 4, "Open MPI", Network::kMpi}); }

TEST(Launch, MpirunWinsOverSlurm) {
  Environment environment = kMpirun;  // salloc + mpirun: SLURM_PROCID belongs to the daemon
  environment.insert(
      {{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}});
  ExpectLaunch(environment, {5, 8, 1, 4, "Open MPI", Network::kMpi});
}

TEST(Launch, SrunWithPmixIsRead) {
  ExpectLaunch({{"PMIX_RANK", "3"},
                {"SLURM_STEP_ID", "0"},
                {"SLURM_PROCID", "3"},
                {"SLURM_STEP_NUM_TASKS", "5"},
                {"SLURM_LOCALID", "1"},
                {"SLURM_NODEID", "1"},
                {"SLURM_STEP_TASKS_PER_NODE", "2(x2),1"}},
               {3, 5, 1, 2, "Slurm", Network::kMpi});
}

TEST(Launch, BatchScriptWithoutSrunIsAlone) {
  ExpectLaunch({{"SLURM_JOB_ID", "9"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}},
               {0, 1, 0, 1, "alone"});
}

const Environment kSrun = {{"SLURM_STEP_ID", "3"},
                           {"SLURM_PROCID", "1"},
                           {"SLURM_STEP_NUM_TASKS", "4"},
                           {"SLURM_LOCALID", "1"},
                           {"SLURM_JOB_ID", "20002"},
                           {"SLURM_STEP_NODELIST", "n[07-08]"},
                           {"SLURM_STEP_TASKS_PER_NODE", "2(x2)"}};

TEST(Launch, SrunWithoutPmixFindsRankZeroOnTheFirstNode) {
  ExpectLaunch(kSrun, OverTcp({1, 4, 1, 2, "Slurm"}, "n07", 10077));
  Environment environment = kSrun;
  environment.insert({{"MASTER_ADDR", "10.1.2.3"}, {"MASTER_PORT", "4000"}});
  ExpectLaunch(environment, OverTcp({1, 4, 1, 2, "Slurm"}, "10.1.2.3", 4000));
}

TEST(Launch, SrunThatDoesNotSayWhereIsRefused) {
  EXPECT_THAT(
      Detect({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "4"}}),
      Fails(ExitCode::kDevice, AllOf(HasSubstr("srun --mpi=pmix"), HasSubstr("MASTER_ADDR"))));
}

TEST(Launch, SlurmsShortHandIsRead) {
  EXPECT_EQ(FirstSlurmHost("n[01-03,7],m2"), "n01");
  EXPECT_EQ(FirstSlurmHost("rack[2,4]n[5-6]x,y"), "rack2n5x");
  EXPECT_EQ(FirstSlurmHost("alpha,beta"), "alpha");
  EXPECT_EQ(FirstSlurmHost(""), "");
  EXPECT_EQ(FirstSlurmHost("n[1-"), "");
  EXPECT_EQ(SlurmTasksOnNode("2(x3),1", 2), 2);
  EXPECT_EQ(SlurmTasksOnNode("2(x3),1", 3), 1);
  EXPECT_EQ(SlurmPort("", "0"), 0);
  EXPECT_NE(SlurmPort("100", "0"), SlurmPort("100", "1"));
}

TEST(Launch, HydraIsRead) {
  ExpectLaunch(
      {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}},
      {1, 2, 1, 2, "PMI", Network::kMpi});
}

const Environment kTorchrun = {{"RANK", "5"},
                               {"WORLD_SIZE", "8"},
                               {"LOCAL_RANK", "1"},
                               {"LOCAL_WORLD_SIZE", "4"},
                               {"MASTER_ADDR", "node1"},
                               {"MASTER_PORT", "29500"}};

TEST(Launch, TorchrunIsRead) {
  ExpectLaunch(kTorchrun, OverTcp({5, 8, 1, 4, "torchrun"}, "node1", 29500));
  ExpectLaunch({{"RANK", "0"}, {"WORLD_SIZE", "1"}}, {0, 1, 0, 1, "alone"});
}

TEST(Launch, RanksOfALoopbackMasterAreAllHere) {
  ExpectLaunch(
      {{"RANK", "1"}, {"WORLD_SIZE", "3"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "9"}},
      OverTcp({1, 3, 1, 3, "torchrun"}, "127.0.0.1", 9));
}

TEST(Launch, TorchrunsAgentOwnsThePort) {
  Environment environment = kTorchrun;
  environment.insert({{"TORCHELASTIC_USE_AGENT_STORE", "True"},
                      {"TORCHELASTIC_RUN_ID", "job7"},
                      {"TORCHELASTIC_RESTART_COUNT", "2"}});
  ExpectLaunch(environment, OverTcp({5, 8, 1, 4, "torchrun"}, "node1", 29500, "osler/job7/2"));
  // Agents that are ranks of mpirun themselves: those variables are theirs.
  environment.insert({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}});
  ExpectLaunch(environment, OverTcp({5, 8, 1, 4, "torchrun"}, "node1", 29500, "osler/job7/2"));
}

TEST(Launch, TorchrunWithoutAnAddressIsRefused) {
  for (const char* name : {"MASTER_ADDR", "MASTER_PORT"}) {
    Environment environment = kTorchrun;
    environment.erase(name);
    EXPECT_THAT(Detect(environment), Fails(ExitCode::kDevice, HasSubstr("set MASTER_ADDR")));
  }
  Environment environment = kTorchrun;
  environment["MASTER_PORT"] = "65536";
  EXPECT_THAT(Detect(environment), Fails(ExitCode::kDevice, HasSubstr("1 to 65535")));
}

TEST(Launch, ContradictionsPrintBoth) {
  Environment environment = kTorchrun;
  environment.insert({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "8"}});
  EXPECT_THAT(Detect(environment),
              Fails(ExitCode::kDevice, AllOf(HasSubstr("RANK=5 of WORLD_SIZE=8 (torchrun)"),
                                             HasSubstr("OMPI_COMM_WORLD_RANK=0"))));
  environment["OMPI_COMM_WORLD_RANK"] = "5";
  ExpectLaunch(environment, OverTcp({5, 8, 1, 4, "torchrun"}, "node1", 29500));
  environment["OMPI_COMM_WORLD_SIZE"] = "6";
  EXPECT_THAT(Detect(environment),
              Fails(ExitCode::kDevice,
                    AllOf(HasSubstr("WORLD_SIZE=8"), HasSubstr("OMPI_COMM_WORLD_SIZE=6"))));

  environment = kMpirun;
  environment["PMIX_RANK"] = "4";
  EXPECT_THAT(Detect(environment), Fails(ExitCode::kDevice, HasSubstr("PMIX_RANK=4")));

  environment = {{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"PMI_RANK", "1"}, {"PMI_SIZE", "2"}};
  EXPECT_THAT(Detect(environment),
              Fails(ExitCode::kDevice, AllOf(HasSubstr("RANK=0"), HasSubstr("PMI_RANK=1"))));

  environment = {{"PMIX_RANK", "3"},
                 {"SLURM_STEP_ID", "0"},
                 {"SLURM_PROCID", "2"},
                 {"SLURM_STEP_NUM_TASKS", "5"}};
  EXPECT_THAT(Detect(environment), Fails(ExitCode::kDevice, AllOf(HasSubstr("PMIX_RANK=3"),
                                                                  HasSubstr("SLURM_PROCID=2"))));
}

TEST(Launch, FlagsComeFirst) {
  const LaunchFlags flags = {1, 3, "10.0.0.1:4000"};
  ExpectLaunch({}, OverTcp({1, 3, 0, 1, "flags"}, "10.0.0.1", 4000), flags);
  ExpectLaunch({{"SLURM_PROCID", "0"}}, OverTcp({1, 3, 0, 1, "flags"}, "10.0.0.1", 4000), flags);
  EXPECT_THAT(Detect(kTorchrun, flags),
              Fails(ExitCode::kDevice, AllOf(HasSubstr("--rank 1 of --world-size 3"),
                                             HasSubstr("RANK=5 of WORLD_SIZE=8"))));
  ExpectLaunch(kTorchrun, OverTcp({5, 8, 1, 4, "torchrun"}, "::1", 77), {{}, {}, "[::1]:77"});
}

TEST(Launch, FlagsThatMakeNoSenseAreRefused) {
  EXPECT_THAT(Detect({}, {1, {}, "a:1"}), Fails(ExitCode::kConfig, HasSubstr("go together")));
  EXPECT_THAT(Detect({}, {3, 3, "a:1"}), Fails(ExitCode::kConfig, HasSubstr("--rank 3")));
  EXPECT_THAT(Detect({}, {-1, 3, "a:1"}), Fails(ExitCode::kConfig, HasSubstr("--rank -1")));
  EXPECT_THAT(Detect({}, {1, 3, ""}), Fails(ExitCode::kConfig, HasSubstr("--master HOST:PORT")));
  for (const char* master : {"a", "a:", ":1", "a:0", "a:65536", "a:x", "::1:5"}) {
    EXPECT_THAT(Detect({}, {1, 3, master}), Fails(ExitCode::kConfig, HasSubstr("HOST:PORT")))
        << master;
  }
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
  ASSERT_OK_AND_ASSIGN(const World world, ConnectWorld(info));
  EXPECT_EQ(world.comm->size(), 1);
  EXPECT_EQ(world.comm->backend(), "single");
}

}  // namespace
}  // namespace osler
