// Writes one shard file from start to end: payload as it comes, headers and table at the end.
// Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "base/fs.h"
#include "data/manifest.h"
#include "data/record_spool.h"
#include "data/shard_format.h"

namespace osler {

class ShardFileWriter {
 public:
  static absl::StatusOr<std::unique_ptr<ShardFileWriter>> Create(Fs& fs,
                                                                 const std::string& directory,
                                                                 std::string name);

  // Adds one record with its stored parts; returns its row.
  absl::StatusOr<uint32_t> Add(const SpooledRecord& record, std::string_view payload);
  // Completes and syncs the file.
  absl::StatusOr<ManifestFile> Finish();

 private:
  ShardFileWriter(std::string name, std::unique_ptr<WritableFile> file)
      : name_(std::move(name)), file_(std::move(file)), buffer_(EncodeShardHead()) {}
  absl::Status Flush();

  const std::string name_;
  std::unique_ptr<WritableFile> file_;
  std::string buffer_, headers_;
  std::vector<TableEntry> table_;
  Sha256 digest_;
  uint64_t payload_end_ = kPageBytes, written_ = 0;
};

}  // namespace osler
