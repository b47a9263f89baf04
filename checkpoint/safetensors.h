// safetensors files: a hardened reader over a memory mapping, and a writer.
//
// Format: u64 little-endian header length, JSON header, then the data; every tensor's bytes are [begin, end) of the data
// (https://github.com/huggingface/safetensors). The reader refuses: a header over 100 MB or past the end of the file,
// duplicate keys, unknown dtypes, negative or overflowing shapes, sizes that disagree with shape × dtype, overlapping
// offsets, holes, and files that are longer or shorter than the header says.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
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

// Immutable and thread-safe. Tensors and views share the mapping and keep it alive.
class SafetensorsFile {
 public:
  // Errors have no exit class and name the file (and tensor); callers Reclassify.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(Fs& fs, const std::string& path);
  virtual ~SafetensorsFile() = default;
  virtual const std::string& path() const = 0;
  virtual const std::map<std::string, TensorInfo>& tensors() const = 0;
  virtual const std::map<std::string, std::string>& metadata() const = 0;
  virtual absl::StatusOr<std::string_view> Bytes(const std::string& name) const = 0;
  // A read-only view of the mapping where the alignment allows it, else a copy. Never write to it.
  virtual absl::StatusOr<at::Tensor> Tensor(const std::string& name) const = 0;
};

// One tensor to write: bytes are of `dtype` in row-major order.
struct TensorToWrite {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::string_view bytes;
};
// For a contiguous CPU tensor, which must outlive the write.
TensorToWrite ToWrite(std::string name, const at::Tensor& tensor);

// Writes, syncs and closes `path` in the given tensor order, header padded with spaces to 8 bytes. Returns the CRC-32C and
// size of the whole file through `written`.
struct WrittenFile {
  int64_t size = 0;
  uint32_t crc32c = 0;
};
absl::StatusOr<WrittenFile> WriteSafetensors(Fs& fs, const std::string& path,
                                             const std::vector<TensorToWrite>& tensors,
                                             const std::map<std::string, std::string>& metadata);

// at dtype ↔ safetensors dtype ("F32"); nullopt-like errors name the dtype.
absl::StatusOr<at::ScalarType> ScalarTypeOf(const std::string& dtype);
std::string DtypeName(at::ScalarType type);

}  // namespace osler
