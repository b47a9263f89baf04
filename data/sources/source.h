// A source yields raw records from outside files: a container format gives rows (row_reader.h), and
// either the format itself (chat_jsonl, tokens_jsonl) or a field map makes records of them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "configs/schema/build.pb.h"
#include "data/record.h"

namespace osler {

// Not thread-safe.
class Source {
 public:
  virtual ~Source() = default;
  // The next record in file order; nullopt at the end. A record that cannot be used is a data error
  // "FILE:LINE: why" (never its text) with a reason (reject.h); the source stands behind it then,
  // so that a caller whose policy is skip may go on. An error without a reason ends the reading.
  virtual absl::StatusOr<std::optional<RawRecord>> Next() = 0;
  // Of the record that Next() read last.
  virtual const Origin& origin() const = 0;
  // Bytes read and in all, for progress.
  virtual int64_t position() const = 0;
  virtual int64_t size() const = 0;
};

// Data error if the path means no file.
absl::StatusOr<std::unique_ptr<Source>> OpenSource(Fs& fs, const config::Source& options);

}  // namespace osler
