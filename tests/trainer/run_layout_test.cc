#include "trainer/run_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "base/errors.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::testing::HasSubstr;

config::Mesh MeshOf(int pipeline, int shard, int context, int tensor) {
  config::Mesh mesh;
  mesh.set_pipeline(pipeline);
  mesh.set_shard(shard);
  mesh.set_context(context);
  mesh.set_tensor(tensor);
  return mesh;
}

TEST(MeshShapeOfTest, DataIsWhatTheOtherAxesLeave) {
  const auto shape = MeshShapeOf(MeshOf(2, 1, 3, 2), 24);
  ASSERT_THAT(shape, IsOk());
  EXPECT_EQ(shape->sizes, (std::array<int, kAxes>{2, 2, 1, 3, 2}));
  EXPECT_EQ(MeshShapeOf(MeshOf(1, 1, 1, 1), 5)->size(Axis::kData), 5);
}

TEST(MeshShapeOfTest, WhatIsGivenStays) {
  config::Mesh mesh = MeshOf(1, 2, 1, 1);
  mesh.set_data(3);
  EXPECT_EQ(MeshShapeOf(mesh, 2)->size(Axis::kData),
            3);  // Mesh::Create tells what is wrong with it
}

TEST(MeshShapeOfTest, RanksThatTheAxesDoNotDivideAreAConfigError) {
  EXPECT_THAT(
      MeshShapeOf(MeshOf(1, 1, 1, 3), 4),
      Fails(ExitCode::kConfig, HasSubstr("needs a multiple of 3 ranks, but 4 run: start 6")));
  EXPECT_THAT(MeshShapeOf(MeshOf(2, 2, 1, 1), 1),
              Fails(ExitCode::kConfig, HasSubstr("a multiple of 4 ranks, but 1 runs: start 4")));
  EXPECT_THAT(MeshShapeOf(MeshOf(1 << 30, 1 << 30, 1 << 30, 1 << 30), 1),
              Fails(ExitCode::kConfig, HasSubstr("more ranks than can be counted")));
}

}  // namespace
}  // namespace osler
