// The subcommands of `osler data`, one file each, and what they share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/fs.h"
#include "tools/commands.h"

namespace osler {

void AddDataBuild(CLI::App& data, Fs& fs, Action& action);
void AddDataInspect(CLI::App& data, Fs& fs, Action& action);
void AddDataVerify(CLI::App& data, Fs& fs, Action& action);

// `path` itself, or its train and validation if it is the output of a build.
std::vector<std::string> ShardDirectories(Fs& fs, const std::string& path);

// Lines on stdout. When the reader has gone (`| head`), Write says so and the command ends quietly.
class StdoutLines {
 public:
  StdoutLines();
  ~StdoutLines();
  StdoutLines(const StdoutLines&) = delete;
  StdoutLines& operator=(const StdoutLines&) = delete;
  // Appends a newline. False: nobody reads any more.
  absl::StatusOr<bool> Write(std::string_view line);
  absl::StatusOr<bool> Flush();

 private:
  std::string buffer_;
};

// `osler data inspect DIR… --order`: what a reader of the stream gets.
struct OrderFlags {
  std::vector<std::string> paths;
  std::vector<double> weights;  // of the paths in the mixture; empty: 1 each
  std::string model, long_records = "truncate";
  uint64_t seed = 0;
  int64_t epoch = 0, sequence_length = 512, readers = 1, reader = 0, from = 0, count = -1;
  bool no_shuffle = false, no_packing = false;
};
absl::Status InspectOrder(Fs& fs, const OrderFlags& flags);

}  // namespace osler
