// The rules a configuration obeys beyond its types; each needs only the configuration itself.
// Thread-safe.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "configs/schema/build.pb.h"
#include "configs/schema/train.pb.h"
#include "configs/yaml_to_proto.h"

namespace osler {

// PRE: defaults are filled in. The first broken rule as "place: key: why; what to do" (config
// class).
absl::Status ValidateTrain(const config::Train& config, const SettingPlaces& places);
absl::Status ValidateBuild(const config::Build& config, const SettingPlaces& places);

// The name under which a source's loss appears: as given, else the last part of its path that is
// not the half of a build ("work/medqa/validation" → "medqa").
std::string ValidationName(const config::ValidationSource& source);

// Keeps the first broken rule of a validation.
class Rules {
 public:
  explicit Rules(const SettingPlaces& places) : places_(places) {}

  // `message` says why and what to do; `key` is the path of the setting at fault
  // ("data.train.0.weight").
  void Require(bool holds, const std::string& key, const std::string& message);
  const absl::Status& status() const { return status_; }

 private:
  const SettingPlaces& places_;
  absl::Status status_;
};

// The rules of one item of sources; `key` is its path ("sources.0").
void CheckSource(const config::Source& source, const std::string& key, Rules& rules);

}  // namespace osler
