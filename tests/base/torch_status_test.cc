#include "base/torch_status.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::testing::AllOf;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;

TEST(CatchTorchTest, PassesStatusesThrough) {
  EXPECT_THAT(CatchTorch([] { return absl::OkStatus(); }), IsOk());
  EXPECT_THAT(CatchTorch([] { return DataError("mine"); }),
              Fails(ExitCode::kData, ::testing::StrEq("mine")));
}

TEST(CatchTorchTest, ATorchErrorIsABugWithoutBacktrace) {
  const absl::Status status = CatchTorch(
      []() -> absl::Status { TORCH_CHECK(false, "shapes differ: 3 and 4\nsecond line"); });
  EXPECT_THAT(status, Fails(ExitCode::kBug,
                            AllOf(HasSubstr("shapes differ: 3 and 4"), Not(HasSubstr("\n")))));
}

TEST(CatchTorchTest, OutOfMemoryIsTheDevice) {
  const absl::Status real = CatchTorch([] {
    at::empty({int64_t{1} << 50}, at::TensorOptions().dtype(at::kDouble));  // 8 PiB
    return absl::OkStatus();
  });
  EXPECT_THAT(real, Fails(ExitCode::kDevice, HasSubstr("out of memory")));
  const absl::Status typed = CatchTorch(
      []() -> absl::Status { TORCH_CHECK_WITH(OutOfMemoryError, false, "GPU 0 is full"); });
  EXPECT_THAT(typed, Fails(ExitCode::kDevice, HasSubstr("GPU 0 is full")));
  EXPECT_THAT(CatchTorch([]() -> absl::Status { throw std::bad_alloc(); }),
              Fails(ExitCode::kDevice, HasSubstr("out of memory")));
}

TEST(CatchTorchTest, CommunicationErrorsAreTheDevice) {
  EXPECT_THAT(
      CatchTorch([]() -> absl::Status { TORCH_CHECK_WITH(DistError, false, "peer went away"); }),
      Fails(ExitCode::kDevice, HasSubstr("peer went away")));
}

TEST(CatchTorchTest, AnythingElseIsABug) {
  EXPECT_THAT(CatchTorch([]() -> absl::Status { throw std::runtime_error("why\nwhere"); }),
              Fails(ExitCode::kBug, ::testing::StrEq("why")));
  EXPECT_THAT(CatchTorch([]() -> absl::Status { throw 3; }),
              Fails(ExitCode::kBug, HasSubstr("unknown exception")));
}

}  // namespace
}  // namespace osler
