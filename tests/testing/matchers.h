// gmock matchers for absl::Status and absl::StatusOr.
//
//   EXPECT_THAT(store.Save(…), IsOk());
//   EXPECT_THAT(Open("x"), Fails(ExitCode::kData, HasSubstr("x.jsonl:3")));
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/errors.h"

namespace osler::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

// The status has this exit class and a message that `message` accepts.
MATCHER_P2(Fails, code, message, "") {
  const absl::Status& status = StatusOf(arg);
  *result_listener << status.ToString();
  return ExitCodeOf(status) == code &&
         ::testing::ExplainMatchResult(message, std::string(status.message()), result_listener);
}

#define OSLER_TEST_CONCAT_INNER(a, b) a##b
#define OSLER_TEST_CONCAT(a, b) OSLER_TEST_CONCAT_INNER(a, b)
// ASSERT_OK_AND_ASSIGN(const auto x, MakeX());
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL(OSLER_TEST_CONCAT(statusor_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_IMPL(statusor, lhs, expr)        \
  auto statusor = (expr);                                     \
  ASSERT_TRUE(statusor.ok()) << statusor.status().ToString(); \
  lhs = std::move(statusor).value()

}  // namespace osler::testing
