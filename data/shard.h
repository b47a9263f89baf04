// Shard directories: what `osler data build` writes and training reads. docs/shard.md is the
// byte-level format.
//
//   DIR/shard-00000.osd …  records, each part with its CRC-32C; record table and trailer at the end
//   DIR/index.bin          source order: record → (shard, entry)
//   DIR/certificate.json   profile, policy digest, counts, trusted sources, build id
//   DIR/report.json        what was found and left out, by source and rule
//   DIR/manifest.json      files with sizes and SHA-256, build id, its own digest; written last
//   DIR/lengths/           sidecars (data/lengths.h); not part of the build, may be added later
//
// A directory without a valid manifest, or whose certificate, index, report or shards are not those
// of that manifest, does not open. Every part's checksum is verified when it is read.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"
#include "data/record.h"

namespace osler {

// The contents of certificate.json that readers act on.
struct Certificate {
  std::string profile;        // "safe_harbor"
  std::string policy_digest;  // SHA-256 of the rules
  std::string tool_version;
  std::string build_id;
  std::vector<std::string> trusted_sources;    // taken on the user's word
  std::map<std::string, int64_t> identifiers;  // replacements by rule, over the whole build
};

struct ShardWriterOptions {
  std::string directory;  // written beside it and renamed by Commit, replacing an older one
  int64_t shard_bytes = 64 << 20;
  Certificate certificate;  // build_id is filled in by Commit when empty
  std::string report_json;
};

// Writes one shard directory. A subject's records always share a shard file. Not thread-safe.
// Dropped without Commit, it removes what it wrote.
class ShardWriter {
 public:
  static absl::StatusOr<std::unique_ptr<ShardWriter>> Create(Fs& fs, ShardWriterOptions options);
  ~ShardWriter();
  absl::Status Append(const CleanRecord& record);
  // The certificate and report as they are known only at the end of the build.
  void SetCertificate(Certificate certificate, std::string report_json);
  // Makes everything durable and visible under its final name, manifest last.
  absl::Status Commit();

 private:
  struct State;
  explicit ShardWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// How much of a directory Open checks: kQuick reads manifest, certificate, index and footers and
// checks the sizes and digests of the small files; kFull also hashes every shard file.
enum class ShardCheck { kQuick, kFull };

// Random access to the records of one directory, in source order. Thread-safe after Open: Read may
// be called from many threads.
class ShardReader {
 public:
  // Data errors name the file that is wrong and what to do.
  static absl::StatusOr<std::unique_ptr<ShardReader>> Open(Fs& fs, const std::string& directory,
                                                           ShardCheck check = ShardCheck::kQuick);
  ~ShardReader();

  int64_t size() const;                                    // records
  absl::StatusOr<CleanRecord> Read(int64_t record) const;  // 0 ≤ record < size(), source order
  RecordKind kind(int64_t record) const;                   // without reading the payload
  const Certificate& certificate() const;
  // Identity of the data: SHA-256 over the records in source order, 64 hex digits. Two builds of
  // the same records have the same digest however they are cut into shard files, so that plans and
  // lengths stay valid.
  const std::string& digest() const;
  const std::string& directory() const;
  int64_t shard_files() const;
  int64_t bytes() const;

 private:
  struct State;
  explicit ShardReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace osler
