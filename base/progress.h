// Progress of long work on stderr: a bar with rate and ETA on a terminal, one line every few
// seconds elsewhere.
//
//   Progress progress("tokenizing", total, "records");
//   for (…) progress.Update(done);
//   progress.Finish();
//
// Cheap to call often: it looks at the clock and draws at most ten times a second. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace osler {

class Progress {
 public:
  // `total` ≤ 0 means unknown: no bar, no ETA. `start` is where a resumed job begins.
  Progress(std::string_view title, int64_t total, std::string_view unit, int64_t start = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` is appended, for example "loss 1.234 · 5120 tokens/s".
  void Update(int64_t done, std::string_view note = {});
  // Seconds to the end at the pace since construction, which a resumed job does not share with
  // earlier ones; 0 when that is unknown.
  double SecondsLeft() const { return SecondsLeft(Clock::now()); }
  // Draws the last state and ends the line. Idempotent.
  void Finish();
  // No output at all (ranks other than 0).
  void Silence() { silent_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(Clock::time_point now);
  double SecondsLeft(Clock::time_point now) const;

  std::string title_, unit_, note_;
  int64_t total_, start_, done_;
  bool terminal_, silent_ = false, drawn_ = false, finished_ = false;
  Clock::time_point begin_, next_;
};

}  // namespace osler
