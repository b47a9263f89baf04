#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace osler {
namespace {

constexpr auto kTerminalInterval = std::chrono::milliseconds(100);
constexpr auto kLogInterval = std::chrono::seconds(5);
constexpr int kBarWidth = 24;

std::string Duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
}

std::string Bar(double share) {
  const int full = static_cast<int>(share * kBarWidth);
  std::string bar;
  for (int i = 0; i < kBarWidth; ++i) bar += i < full ? "█" : "░";
  return bar;
}

}  // namespace

Progress::Progress(std::string_view title, int64_t total, std::string_view unit, int64_t start)
    : title_(title),
      unit_(unit),
      total_(total),
      start_(start),
      done_(start),
      terminal_(isatty(STDERR_FILENO) == 1),
      begin_(Clock::now()),
      next_(begin_ + (terminal_ ? kTerminalInterval : kLogInterval)) {}

Progress::~Progress() { Finish(); }

void Progress::Update(int64_t done, std::string_view note) {
  done_ = done;
  if (silent_) return;
  const auto now = Clock::now();
  if (!note.empty()) note_ = note;
  if (now < next_) return;
  next_ = now + (terminal_ ? kTerminalInterval : kLogInterval);
  Draw(now);
}

double Progress::SecondsLeft(Clock::time_point now) const {
  if (done_ <= start_ || total_ <= done_) return 0;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  return seconds * static_cast<double>(total_ - done_) / static_cast<double>(done_ - start_);
}

void Progress::Draw(Clock::time_point now) {
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_ - start_) / seconds : 0;
  std::string line = title_;
  if (total_ > 0) {
    const double share = static_cast<double>(done_) / static_cast<double>(total_);
    line += fmt::format(" {} {:3.0f}% {}/{} {}", Bar(share), 100 * share, done_, total_, unit_);
  } else {
    line += fmt::format(" {} {}", done_, unit_);
  }
  line += fmt::format(" · {:.{}f}/s", rate, rate < 10 ? 2 : 0);
  if (total_ > 0 && rate > 0 && done_ < total_) {
    line += " · ETA " + Duration(SecondsLeft(now));
  } else if (done_ >= total_) {
    line += " · " + Duration(seconds);
  }
  if (!note_.empty()) line += " · " + note_;
  std::fprintf(stderr, terminal_ ? "\r%s\033[K" : "%s\n", line.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::Finish() {
  if (finished_ || silent_) return;
  finished_ = true;
  const auto now = Clock::now();
  const bool worth_a_line = drawn_ || terminal_ || now - begin_ > kLogInterval;
  if (!worth_a_line) return;
  Draw(now);
  if (terminal_) std::fputc('\n', stderr);
}

}  // namespace osler
