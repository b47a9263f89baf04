// safetensors files: a hardened reader over a memory mapping, and a writer. docs/checkpoint.md.
//
// Format: u64 little-endian header length, JSON header, then the data; every tensor's bytes are
// [begin, end) of the data (https://github.com/huggingface/safetensors). The reader refuses: a
// header over 100 MB or past the end of the file, duplicate keys, unknown dtypes, negative or
// overflowing shapes, sizes that disagree with shape × dtype, overlapping offsets, holes, and files
// that are longer or shorter than the header says.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"

namespace osler {

struct TensorInfo {
  std::string dtype;  // "F32", "BF16", … as in the file
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // of the data section
};

// Immutable and thread-safe. Tensors and views share the mapping and keep it alive. The file must
// not be truncated while it is mapped (files of checkpoints and model directories are replaced by
// renaming, never written in place).
class SafetensorsFile {
 public:
  // Errors have no exit class and name the file (and tensor); callers Reclassify.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(Fs& fs,
                                                                     const std::string& path);
  // The same over a mapping the caller already has (and may have checksummed); `path` is for
  // messages.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Parse(
      const std::string& path, std::shared_ptr<const MappedFile> mapping);
  virtual ~SafetensorsFile() = default;
  virtual const std::string& path() const = 0;
  virtual const std::map<std::string, TensorInfo>& tensors() const = 0;
  virtual const std::map<std::string, std::string>& metadata() const = 0;
  virtual absl::StatusOr<std::string_view> Bytes(const std::string& name) const = 0;
  // A read-only view of the mapping where the alignment allows it, else a copy. Never write to it.
  // dtypes outside F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL are an error here; Bytes gives them.
  virtual absl::StatusOr<at::Tensor> Tensor(const std::string& name) const = 0;
};

// The tensors of a file in the order of their data.
std::vector<std::string> NamesInFileOrder(const SafetensorsFile& file);

// One tensor to write: bytes are of `dtype` in row-major order.
struct TensorToWrite {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::string_view bytes;
};
// For a contiguous CPU tensor, which must outlive the write.
TensorToWrite ToWrite(std::string name, const at::Tensor& tensor);

// Writes, syncs and closes `path` in the given tensor order, header padded with spaces to 8 bytes.
// Returns the CRC-32C and size of the whole file through `written`.
struct WrittenFile {
  int64_t size = 0;
  uint32_t crc32c = 0;
};
absl::StatusOr<WrittenFile> WriteSafetensors(Fs& fs, const std::string& path,
                                             const std::vector<TensorToWrite>& tensors,
                                             const std::map<std::string, std::string>& metadata);

// The streaming form: `bytes` of each entry are ignored; `bytes_of(i)` gives them when tensor i is
// due, valid until the next call, so that only one converted tensor need be in memory.
// `after_first_part` (may be null) runs once the header and the first part of the data are written
// and nothing is synced.
absl::StatusOr<WrittenFile> WriteSafetensors(
    Fs& fs, const std::string& path, const std::vector<TensorToWrite>& tensors,
    const std::map<std::string, std::string>& metadata,
    const std::function<absl::StatusOr<std::string_view>(size_t index)>& bytes_of,
    const std::function<void()>& after_first_part);

// at dtype ↔ safetensors dtype ("F32"); errors name the dtype. DtypeName of a type outside
// Tensor()'s list is "".
absl::StatusOr<at::ScalarType> ScalarTypeOf(const std::string& dtype);
std::string DtypeName(at::ScalarType type);

}  // namespace osler
