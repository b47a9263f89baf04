// Encoded records on their way to shard files: the payload waits in one file on disk, the headers
// in memory, until it is known how much each subject has and so which shard it belongs to. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"
#include "data/record.h"
#include "data/shard_record.h"

namespace osler {

struct SpooledRecord {
  RecordHeader header;  // its parts' offsets are those in the spool
  RecordKind kind = RecordKind::kChat;
  uint32_t tokens = 0;
  int64_t bytes = 0;  // of all parts, stored one after another
};

class RecordSpool {
 public:
  static absl::StatusOr<std::unique_ptr<RecordSpool>> Create(Fs& fs, std::string path);

  // `parts` are the record's encoded body.
  absl::Status Append(const CleanRecord& record, const std::vector<RawPart>& parts);
  // Ends writing. Afterwards Payload works, until Remove.
  absl::Status Finish();
  absl::Status Remove();

  const std::vector<SpooledRecord>& records() const { return records_; }
  // The stored bytes of a record's parts. PRE: Finish succeeded.
  std::string_view Payload(const SpooledRecord& record) const;
  int64_t bytes() const { return static_cast<int64_t>(end_); }

 private:
  RecordSpool(Fs& fs, std::string path, std::unique_ptr<WritableFile> file)
      : fs_(fs), path_(std::move(path)), file_(std::move(file)) {}
  absl::Status Flush();

  Fs& fs_;
  const std::string path_;
  std::unique_ptr<WritableFile> file_;
  std::shared_ptr<const MappedFile> mapped_;
  std::string buffer_;
  uint64_t end_ = 0;  // bytes appended so far, written or not
  PartCompressor compressor_;
  std::vector<SpooledRecord> records_;
};

}  // namespace osler
