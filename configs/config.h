// Configurations: YAML → protobuf message → checked message. The schemas in configs/schema are the
// only source of truth: an unknown key, a wrong type or an impossible value is a config error (exit
// 2) that names file and line.
//
//   OSLER_ASSIGN_OR_RETURN(config::Train c,
//                          LoadTrainConfig(fs, "train.yaml", {"optimizer.lr=2e-4"}));
//
// Thread-safe. Relative paths in a file are relative to the working directory of the process.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "configs/schema/build.pb.h"
#include "configs/schema/train.pb.h"

namespace osler {

// Reads `path`, applies `overrides` ("a.b=value", YAML on the right; list items as
// "data.train.0.weight=2"), checks every rule that needs no other file, and fills in all defaults,
// so that every field of the result is set (betas too), except mesh.data when neither the file nor
// an override gives it. An absent `split` of a build stays absent: nothing is held out.
absl::StatusOr<config::Train> LoadTrainConfig(Fs& fs, const std::string& path,
                                              const std::vector<std::string>& overrides);
absl::StatusOr<config::Build> LoadBuildConfig(Fs& fs, const std::string& path,
                                              const std::vector<std::string>& overrides);

// The same from text; `name` stands for the file in messages.
absl::StatusOr<config::Train> ParseTrainConfig(const std::string& text, const std::string& name,
                                               const std::vector<std::string>& overrides);
absl::StatusOr<config::Build> ParseBuildConfig(const std::string& text, const std::string& name,
                                               const std::vector<std::string>& overrides);

// YAML that loads back to an equal message (floats round-trip), keys in schema order.
std::string ToYaml(const google::protobuf::Message& message);

}  // namespace osler
