// Early returns for absl::Status and absl::StatusOr (Debian's abseil has none).
//
//   OSLER_RETURN_IF_ERROR(shard.Verify());
//   OSLER_ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(path));
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define OSLER_STATUS_CONCAT_INNER(a, b) a##b
#define OSLER_STATUS_CONCAT(a, b) OSLER_STATUS_CONCAT_INNER(a, b)

#define OSLER_RETURN_IF_ERROR(expr)                                                  \
  do {                                                                               \
    if (absl::Status osler_status = (expr); !osler_status.ok()) return osler_status; \
  } while (false)

#define OSLER_ASSIGN_OR_RETURN(lhs, expr) \
  OSLER_ASSIGN_OR_RETURN_IMPL(OSLER_STATUS_CONCAT(osler_statusor_, __LINE__), lhs, expr)

#define OSLER_ASSIGN_OR_RETURN_IMPL(statusor, lhs, expr)   \
  auto statusor = (expr);                                  \
  if (!statusor.ok()) return std::move(statusor).status(); \
  lhs = std::move(statusor).value()
