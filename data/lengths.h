// Exact token lengths of every record of a shard directory, so that the order of an epoch is
// arithmetic.
//
// Kept in DIR/lengths/<encoder digest>.bin (docs/shard.md), bound to the data's digest and
// checksummed; made by `osler data build --model` or at the first training. A sidecar that does not
// match is made anew.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "data/encoder.h"
#include "data/shard.h"

namespace osler {

struct RecordLength {
  uint32_t tokens = 0;
  // Position of the first and last label that is a target (position ≥ 1); both 0 if the record has
  // none.
  uint32_t first_target = 0;
  uint32_t last_target = 0;
};

using Lengths = std::vector<RecordLength>;

// Reads the sidecar, or measures every record with a progress bar and writes it (a directory that
// cannot be written is only a warning). Multithreaded by `threads`.
absl::StatusOr<Lengths> EnsureLengths(Fs& fs, const ShardReader& shards,
                                      const RecordEncoder& encoder, int threads);

// The sidecar's, or nullopt where there is none that fits.
std::optional<Lengths> FindLengths(Fs& fs, const ShardReader& shards, const RecordEncoder& encoder);

}  // namespace osler
