// What an epoch of a run's data is: records from the shard index, and tokens and packs where the
// length sidecars are there. Reads no record.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/fs.h"
#include "configs/schema/train.pb.h"
#include "trainer/plan/compute.h"

namespace osler {

struct PlanEpoch {
  std::optional<int64_t> records;  // of all sources
  std::optional<int64_t> packs, tokens;
  MeanKeys keys;  // that a token sees, in the documents of the packs; else full sequences
  // Of the tokens, those from a record's first target to its last: all that have one, and what
  // stands between turns. 1: not known.
  double target_share = 1;
  std::string note;  // why something is not known, for people; empty: all is
};

PlanEpoch CountEpoch(Fs& fs, const config::Train& config, const PlanModel& model);

}  // namespace osler
