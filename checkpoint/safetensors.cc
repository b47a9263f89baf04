#include "checkpoint/safetensors.h"

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>

#include "base/errors.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/dtype.h"
#include "checkpoint/safetensors_header.h"

namespace osler {
namespace {

class MappedSafetensors final : public SafetensorsFile {
 public:
  MappedSafetensors(std::string path, std::shared_ptr<const MappedFile> mapping,
                    SafetensorsHeader header)
      : path_(std::move(path)), mapping_(std::move(mapping)), header_(std::move(header)) {}

  const std::string& path() const override { return path_; }
  const std::map<std::string, TensorInfo>& tensors() const override { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const override { return header_.metadata; }

  absl::StatusOr<std::string_view> Bytes(const std::string& name) const override {
    const auto it = header_.tensors.find(name);
    if (it == header_.tensors.end()) {
      return absl::NotFoundError(fmt::format("{}: there is no tensor {}", path_, Printable(name)));
    }
    return mapping_->data().substr(static_cast<size_t>(header_.data_begin + it->second.begin),
                                   static_cast<size_t>(it->second.end - it->second.begin));
  }

  absl::StatusOr<at::Tensor> Tensor(const std::string& name) const override {
    OSLER_ASSIGN_OR_RETURN(const std::string_view bytes, Bytes(name));
    const TensorInfo& info = header_.tensors.at(name);
    const auto type = ScalarTypeOf(info.dtype);
    const std::string where = fmt::format("{}: tensor {}", path_, Printable(name));
    if (!type.ok()) return Annotate(type.status(), where);
    // Any byte but 0 and 1 in a C++ bool is undefined behaviour.
    if (*type == at::kBool &&
        std::any_of(bytes.begin(), bytes.end(), [](char b) { return b != 0 && b != 1; })) {
      return absl::DataLossError(where + " is BOOL but holds a byte that is neither 0 nor 1");
    }
    at::Tensor tensor;
    OSLER_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
      tensor = View(bytes, info, *type);
      return absl::OkStatus();
    }));
    return tensor;
  }

 private:
  at::Tensor View(std::string_view bytes, const TensorInfo& info, at::ScalarType type) const {
    const auto options = at::TensorOptions().dtype(type);
    void* data = const_cast<char*>(bytes.data());
    if (reinterpret_cast<std::uintptr_t>(data) % c10::elementSize(type) == 0) {
      return at::from_blob(
          data, info.shape, [keep = mapping_](void*) {}, options);
    }
    auto copy = std::make_shared<std::string>(bytes);  // operator new aligns for every element type
    return at::from_blob(
               copy->data(), info.shape, [copy](void*) {}, options)
        .clone();
  }

  std::string path_;
  std::shared_ptr<const MappedFile> mapping_;
  SafetensorsHeader header_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    Fs& fs, const std::string& path) {
  OSLER_ASSIGN_OR_RETURN(auto mapping, fs.Map(path));
  return Parse(path, std::move(mapping));
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Parse(
    const std::string& path, std::shared_ptr<const MappedFile> mapping) {
  auto header = ParseSafetensorsHeader(mapping->data());
  if (!header.ok()) return Annotate(header.status(), path);
  return std::make_shared<const MappedSafetensors>(path, std::move(mapping), *std::move(header));
}

std::vector<std::string> NamesInFileOrder(const SafetensorsFile& file) {
  std::vector<std::string> names;
  for (const auto& [name, info] : file.tensors()) names.push_back(name);
  std::stable_sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    const TensorInfo &x = file.tensors().at(a), &y = file.tensors().at(b);
    return std::tie(x.begin, x.end) < std::tie(y.begin, y.end);
  });
  return names;
}

}  // namespace osler
