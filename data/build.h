// `osler data build`: sources → gate → shard directories OUTPUT/train and OUTPUT/validation.
//
// Two passes over the sources: the first checks every record and collects subjects, the second
// redacts and writes. Everything is written below OUTPUT/.building and moved into place at the end,
// both splits together, so a build that fails leaves an earlier output as it was, and train and
// validation never come from different builds. The same input gives the same bits.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "configs/schema/build.pb.h"
#include "data/report.h"

namespace osler {

struct BuildOptions {
  std::string tool_version;     // stands in the certificate
  std::string model_directory;  // not empty: the length sidecars for its tokenizer are made too
  int threads = 1;              // that search for identifiers
};

// `build` has passed LoadBuildConfig. Data errors are "FILE:LINE: why"; an output path that holds
// anything else than shards is a config error.
absl::StatusOr<BuildReport> BuildShards(Fs& fs, const config::Build& build,
                                        const BuildOptions& options);

}  // namespace osler
