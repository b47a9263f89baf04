// A source yields raw records from one outside file. One reader a format (chat_jsonl.cc,
// tokens_jsonl.cc).
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
  // "FILE:LINE: why" (never its text); the source stands behind it then, so that a caller whose
  // policy is skip may go on.
  virtual absl::StatusOr<std::optional<RawRecord>> Next() = 0;
  // Bytes read and in all, for progress.
  virtual int64_t position() const = 0;
  virtual int64_t size() const = 0;
};

absl::StatusOr<std::unique_ptr<Source>> OpenSource(Fs& fs, const config::Source& options);

}  // namespace osler
