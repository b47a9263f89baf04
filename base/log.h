// People's text on stderr: one line a message, "osler: " or "osler[rank]: " first, level when not
// plain.
//
// Machine-readable output never goes through here. No message may carry record text. Thread-safe.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace osler {

enum class LogLevel { kInfo, kWarning, kError };

// Marks this process's lines with its rank and silences info lines on ranks other than 0. Call once
// at start.
void SetLogRank(int rank, int world_size);

void LogLine(LogLevel level, std::string_view message);

template <typename... Args>
void LogInfo(fmt::format_string<Args...> format, Args&&... args) {
  LogLine(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void LogWarning(fmt::format_string<Args...> format, Args&&... args) {
  LogLine(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void LogError(fmt::format_string<Args...> format, Args&&... args) {
  LogLine(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace osler
