// Writes one shard file piece by piece: payload goes to disk as it comes, headers and table at the end.
//
// The file is open only while a piece is written, so that a build may have any number of shards unfinished (a
// subject's later records go to the shard of its first). Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "base/fs.h"
#include "data/manifest.h"
#include "data/shard_format.h"

namespace osler {

class ShardFileWriter {
 public:
  ShardFileWriter(Fs& fs, std::string directory, std::string name);

  // Takes over one record; returns its row. `stored` holds the bytes of header.parts in order, whose offsets are
  // filled in here.
  uint32_t Add(RecordHeader header, const std::vector<std::string>& stored, RecordKind kind, uint32_t tokens);
  absl::Status Flush();
  // Completes and syncs the file.
  absl::StatusOr<ManifestFile> Finish();

  int64_t payload_bytes() const { return static_cast<int64_t>(payload_end_ - kPageBytes); }
  int64_t buffered_bytes() const { return static_cast<int64_t>(buffer_.size()); }

 private:
  Fs* fs_;
  std::string path_, name_;
  std::string buffer_, headers_;
  std::vector<TableEntry> table_;
  std::unique_ptr<Sha256> digest_ = std::make_unique<Sha256>();
  uint64_t payload_end_ = kPageBytes, written_ = 0;
};

}  // namespace osler
