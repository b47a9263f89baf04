// A finished checkpoint as tensors, whatever files they lie in.
//
// A group ("weights", "optimizer") is the files GROUP.safetensors or GROUP.rankR.safetensors; a
// tensor of it is whole in one file or in parts over several (checkpoint/part_metadata.h). Opening
// reads the manifest and the headers and checks that the parts of each tensor make it up exactly;
// checksums are verified file by file, of those that are read. Errors have no exit class, and their
// code tells what they mean: kDataLoss is damage, kUnimplemented a newer format, anything else a
// file that could not be read just now. Not thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"
#include "parallel/tensor_part.h"

namespace osler {

// "weights.rank3.safetensors" → "weights"; "" for a name of no tensor file.
std::string_view GroupOfFile(std::string_view name);

class CheckpointReader {
 public:
  struct Piece {
    size_t file = 0;  // of manifest().files
    TensorPart part;
  };
  struct Stored {
    std::string dtype;
    std::vector<int64_t> shape;
    std::vector<Piece> pieces;
  };
  using Group = std::map<std::string, Stored>;

  // Opens a step-N directory. The headers of other groups are not read; `groups` empty: all are.
  static absl::StatusOr<CheckpointReader> Open(Fs& fs, const std::string& directory, int64_t step,
                                               const std::set<std::string>& groups = {});

  const Manifest& manifest() const { return manifest_; }
  const std::map<std::string, Group>& groups() const { return groups_; }
  // nullptr: there is none.
  const Stored* Find(const std::string& group, const std::string& name) const;

  // Maps a file and verifies its size and checksum, once.
  absl::StatusOr<std::string_view> Bytes(size_t file);
  // Every text file, verified, by name.
  absl::StatusOr<std::map<std::string, std::string>> Texts();
  // Verifies every file whose header was read: an error of content may be damage.
  absl::Status CheckOpened();
  // Verifies the files that Read of this part would read.
  absl::Status Check(const Stored& stored, const TensorPart& part);
  // Copies the part's elements to `to` (of the stored dtype).
  absl::Status Read(const std::string& name, const Stored& stored, const TensorPart& part,
                    char* to);
  // The whole tensor: a read-only view of the file that has it (which the reader keeps open), else
  // a copy.
  absl::StatusOr<at::Tensor> Whole(const std::string& name, const Stored& stored);

 private:
  struct File {
    std::shared_ptr<const MappedFile> mapping;
    std::shared_ptr<const SafetensorsFile> tensors;  // null: a text, or of another group
    bool verified = false;
  };
  absl::Status ReadHeaders(const std::set<std::string>& groups);
  absl::Status OpenFile(size_t file);
  absl::Status AddTensors(size_t file);

  Fs* fs_ = nullptr;
  std::string directory_;
  Manifest manifest_;
  std::vector<File> files_;  // as in the manifest
  std::map<std::string, Group> groups_;
};

}  // namespace osler
