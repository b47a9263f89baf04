#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>

namespace osler {
namespace {

std::atomic<bool> quiet{false};

std::shared_ptr<spdlog::logger> Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
    auto made = std::make_shared<spdlog::logger>("osler", std::move(sink));
    made->set_pattern("osler: %v");
    return made;
  }();
  return logger;
}

}  // namespace

void SetLogRank(int rank, int world_size) {
  if (world_size > 1) Logger()->set_pattern(fmt::format("osler[{}]: %v", rank));
  quiet = rank != 0;
}

void LogLine(LogLevel level, std::string_view message) {
  switch (level) {
    case LogLevel::kInfo:
      if (!quiet) Logger()->info(message);
      break;
    case LogLevel::kWarning: Logger()->warn("warning: {}", message); break;
    case LogLevel::kError: Logger()->error("error: {}", message); break;
  }
  Logger()->flush();
}

}  // namespace osler
