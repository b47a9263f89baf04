#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_header.h"

namespace osler {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kPart = 1 << 20;  // bytes: checksummed while still in the cache, then written

// Quotes a string as JSON; an error when it is not UTF-8.
absl::StatusOr<std::string> Quote(const std::string& text) {
  std::string quoted;
  try {
    quoted = Json(text).dump();
  } catch (const nlohmann::detail::exception&) {
    return absl::InvalidArgumentError(Printable(text) + " is not UTF-8");
  }
  return quoted;
}

absl::StatusOr<std::string> MakeHeader(const std::vector<TensorToWrite>& tensors,
                                       const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += fmt::format("\"{}\":{{", kMetadataKey);
    for (const auto& [key, value] : metadata) {
      OSLER_ASSIGN_OR_RETURN(const std::string left, Quote(key));
      OSLER_ASSIGN_OR_RETURN(const std::string right, Quote(value));
      text += fmt::format("{}{}:{}", text.back() == '{' ? "" : ",", left, right);
    }
    text += "}";
  }
  std::set<std::string_view> names;
  int64_t offset = 0;
  for (const TensorToWrite& one : tensors) {
    const std::optional<int64_t> bytes = TensorBytes(one.dtype, one.shape);
    if (!bytes.has_value() || one.shape.size() > kMostDimensions ||
        __builtin_add_overflow(offset, *bytes, &offset)) {
      return absl::InvalidArgumentError(
          fmt::format("tensor {} of dtype {} has no size in this format", Printable(one.name),
                      Printable(one.dtype)));
    }
    if (one.name == kMetadataKey || !names.insert(one.name).second) {
      return absl::InvalidArgumentError(
          fmt::format("tensor name {} appears twice", Printable(one.name)));
    }
    OSLER_ASSIGN_OR_RETURN(const std::string name, Quote(one.name));
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        text.size() == 1 ? "" : ",", name, one.dtype, fmt::join(one.shape, ","),
                        offset - *bytes, offset);
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  if (static_cast<int64_t>(text.size()) > kLargestHeader) {
    return absl::InvalidArgumentError(
        fmt::format("{} tensors need a header over the format's cap", tensors.size()));
  }
  return text;
}

// A file with a running checksum.
class Writer {
 public:
  explicit Writer(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}

  absl::Status Append(std::string_view data) {
    written_.crc32c = Crc32c(data, written_.crc32c);
    written_.size += static_cast<int64_t>(data.size());
    return file_->Append(data);
  }
  absl::Status AppendData(std::string_view data, const std::function<void()>& after_first_part) {
    for (; !data.empty(); data.remove_prefix(std::min(kPart, data.size()))) {
      OSLER_RETURN_IF_ERROR(Append(data.substr(0, kPart)));
      FirstPart(after_first_part);
    }
    return absl::OkStatus();
  }
  void FirstPart(const std::function<void()>& after_first_part) {
    if (!std::exchange(first_part_done_, true) && after_first_part) after_first_part();
  }
  absl::StatusOr<WrittenFile> Finish() {
    OSLER_RETURN_IF_ERROR(file_->Sync());
    OSLER_RETURN_IF_ERROR(file_->Close());
    return written_;
  }

 private:
  std::unique_ptr<WritableFile> file_;
  WrittenFile written_;
  bool first_part_done_ = false;
};

}  // namespace

TensorToWrite ToWrite(std::string name, const at::Tensor& tensor) {
  OSLER_CHECK(tensor.is_contiguous() && tensor.device().is_cpu());
  return {std::move(name), DtypeName(tensor.scalar_type()), tensor.sizes().vec(),
          std::string_view(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes())};
}

absl::StatusOr<WrittenFile> WriteSafetensors(
    Fs& fs, const std::string& path, const std::vector<TensorToWrite>& tensors,
    const std::map<std::string, std::string>& metadata,
    const std::function<absl::StatusOr<std::string_view>(size_t index)>& bytes_of,
    const std::function<void()>& after_first_part) {
  const auto header = MakeHeader(tensors, metadata);
  if (!header.ok()) return Annotate(header.status(), path);
  OSLER_ASSIGN_OR_RETURN(auto file, fs.Open(path, OpenMode::kBulk));
  Writer writer(std::move(file));
  const auto length = static_cast<uint64_t>(header->size());
  OSLER_RETURN_IF_ERROR(writer.Append({reinterpret_cast<const char*>(&length), sizeof length}));
  OSLER_RETURN_IF_ERROR(writer.Append(*header));
  for (size_t i = 0; i < tensors.size(); ++i) {
    OSLER_ASSIGN_OR_RETURN(const std::string_view bytes, bytes_of(i));
    if (static_cast<int64_t>(bytes.size()) != *TensorBytes(tensors[i].dtype, tensors[i].shape)) {
      return absl::InvalidArgumentError(
          fmt::format("{}: tensor {} has {} bytes, not those of its shape", path,
                      Printable(tensors[i].name), bytes.size()));
    }
    OSLER_RETURN_IF_ERROR(writer.AppendData(bytes, after_first_part));
  }
  writer.FirstPart(after_first_part);
  return writer.Finish();
}

absl::StatusOr<WrittenFile> WriteSafetensors(Fs& fs, const std::string& path,
                                             const std::vector<TensorToWrite>& tensors,
                                             const std::map<std::string, std::string>& metadata) {
  return WriteSafetensors(
      fs, path, tensors, metadata,
      [&](size_t i) -> absl::StatusOr<std::string_view> { return tensors[i].bytes; }, nullptr);
}

}  // namespace osler
