// The two JSON files that make a shard directory trustworthy: the manifest (which files, which
// bytes) and the certificate (who de-identified the records, and how). Pure functions of text,
// thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/shard.h"

namespace osler {

struct ManifestFile {
  std::string name;  // in the shard directory
  int64_t bytes = 0;
  std::string sha256;
  int64_t records = 0;  // of a shard file
};

struct Manifest {
  std::string build_id;     // of this build: data, certificate and report
  std::string data_digest;  // of the records in source order, however they are cut into files
  int64_t records = 0;
  ManifestFile index, certificate, report;
  std::vector<ManifestFile> shards;
};

// The manifest's text; its last field is the digest of the rest.
std::string WriteManifest(const Manifest& manifest);
// Data errors name `path`. Only the names that a shard directory may hold are accepted, so no path
// leaves it.
absl::StatusOr<Manifest> ParseManifest(const std::string& text, const std::string& path);

std::string WriteCertificate(const Certificate& certificate);
absl::StatusOr<Certificate> ParseCertificate(const std::string& text, const std::string& path);

// The identity of a build: SHA-256 over everything that it holds.
std::string BuildId(const Manifest& manifest, const Certificate& certificate,
                    const std::string& report);

// A data error that names the file if `text` is not what the manifest lists under this name.
absl::Status CheckFile(const ManifestFile& listed, std::string_view text, const std::string& path);

}  // namespace osler
