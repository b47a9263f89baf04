// manifest.json of a checkpoint: which files it has, their sizes and checksums, closed by a digest
// of itself.
//
// The text ends with `,\n"sha256":"<64 hex>"}\n`; the digest covers every byte before that comma,
// and everything after it is fixed, so no byte of a manifest can change unnoticed. Later formats
// keep this ending, which lets an older program tell a newer manifest from a damaged one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace osler {

inline constexpr char kManifestName[] = "manifest.json";
// 2: tensors may be in parts over files of several ranks. 1: all are whole. Both are read.
inline constexpr int64_t kManifestFormat = 2;

struct ManifestFile {
  std::string name;      // a plain file name in the checkpoint's directory
  int64_t size = 0;      // bytes
  uint32_t crc32c = 0;   // of the whole file
  int64_t tensors = -1;  // of a .safetensors file; -1: a text file
};

struct Manifest {
  int64_t step = 0;
  std::vector<ManifestFile> files;
};

std::string FormatManifest(const Manifest& manifest);

// kUnimplemented: intact, but of a newer format. Any other error means damage.
absl::StatusOr<Manifest> ParseManifest(std::string_view text);

// A name that stays inside the directory it is joined to and is none of the store's own.
bool IsPlainFileName(std::string_view name);

}  // namespace osler
