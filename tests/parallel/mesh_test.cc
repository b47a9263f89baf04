#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

using ::testing::AllOf;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;
using testing::RunRanks;

absl::Status CreateOn(int ranks, const MeshShape& shape) {
  const auto results =
      RunRanks(ranks, [&](Communicator& world) { return Mesh::Create(shape, world).status(); });
  for (const absl::Status& result : results) EXPECT_EQ(result, results[0]);
  return results[0];
}

TEST(Mesh, RefusesAProductThatIsNotTheWorld) {
  EXPECT_THAT(CreateOn(1, {{1, 2, 1, 1, 1}}),
              Fails(ExitCode::kConfig, AllOf(HasSubstr("(data: 2) needs 2 ranks, but 1 runs"),
                                             HasSubstr("mpirun -n 2, or set mesh.data to 1"))));
  EXPECT_THAT(CreateOn(3, {{1, 1, 1, 1, 1}}),
              Fails(ExitCode::kConfig,
                    AllOf(HasSubstr("every axis is 1"), HasSubstr("needs 1 rank, but 3 run"),
                          HasSubstr("set mesh.data to 3"))));
  EXPECT_THAT(
      CreateOn(3, {{1, 1, 1, 1, 2}}),
      Fails(ExitCode::kConfig, AllOf(HasSubstr("tensor: 2"), Not(HasSubstr("set mesh.data")))));
}

TEST(Mesh, RefusesImpossibleSizes) {
  EXPECT_THAT(CreateOn(1, {{1, 0, 1, 1, 1}}),
              Fails(ExitCode::kConfig, HasSubstr("mesh.data is 0")));
  EXPECT_THAT(CreateOn(1, {{1, 1, 1, -2, 1}}),
              Fails(ExitCode::kConfig, HasSubstr("mesh.context is -2")));
  const int big = 2'000'000'000;
  EXPECT_THAT(CreateOn(1, {{big, big, big, 1, 1}}),
              Fails(ExitCode::kConfig, HasSubstr("more ranks")));
}

TEST(Mesh, CoordinatesFollowTheAxesOutermostFirst) {
  const auto results = RunRanks(8, [](Communicator& world) {
    auto mesh = Mesh::Create({{2, 2, 1, 1, 2}}, world);
    EXPECT_THAT(mesh, IsOk());
    const int r = world.rank();
    EXPECT_EQ(mesh->comm(Axis::kPipeline).rank(), r / 4);
    EXPECT_EQ(mesh->comm(Axis::kData).rank(), r / 2 % 2);
    EXPECT_EQ(mesh->comm(Axis::kTensor).rank(), r % 2);
    EXPECT_EQ(mesh->comm(Axis::kShard).backend(), "single");
    EXPECT_EQ(&mesh->world(), &world);
    return absl::OkStatus();
  });
  for (const absl::Status& result : results) EXPECT_THAT(result, IsOk());
}

}  // namespace
}  // namespace osler
