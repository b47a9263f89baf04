#include "checkpoint/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/strict_json.h"

namespace osler {
namespace {

constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

class MappedWeights final : public WeightDirectory {
 public:
  const std::vector<std::string>& names() const override { return names_; }
  const TensorInfo& info(const std::string& name) const override {
    return place_.at(name)->tensors().at(name);
  }
  absl::StatusOr<at::Tensor> Tensor(const std::string& name) const override {
    const auto it = place_.find(name);
    if (it == place_.end()) {
      return ConfigError(
          fmt::format("{}: the weights have no tensor {}", directory_, Printable(name)));
    }
    auto tensor = it->second->Tensor(name);
    if (!tensor.ok()) return Reclassify(tensor.status(), ExitCode::kConfig);
    return tensor;
  }
  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const override {
    return files_;
  }
  const std::string& index_file() const override { return index_file_; }

  explicit MappedWeights(std::string directory) : directory_(std::move(directory)) {}
  absl::Status OpenSingle(Fs& fs) { return Add(fs, kSingle); }
  absl::Status OpenSharded(Fs& fs);
  void Sort() {
    for (const auto& [name, file] : place_) names_.push_back(name);
  }

 private:
  absl::Status Add(Fs& fs, const std::string& file_name);

  std::string directory_, index_file_;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*> place_;
  std::vector<std::string> names_;
};

absl::Status MappedWeights::Add(Fs& fs, const std::string& file_name) {
  const std::string path = JoinPath(directory_, file_name);
  if (!fs.Exists(path)) {
    return ConfigError(fmt::format("{} names {}, which is not in {}: fetch the model again", kIndex,
                                   Printable(file_name), directory_));
  }
  if (!IsRegularFile(path)) return ConfigError(path + " is not a regular file");
  auto file = SafetensorsFile::Open(fs, path);
  if (!file.ok()) return Reclassify(file.status(), ExitCode::kConfig);
  for (const auto& [name, info] : (*file)->tensors()) {
    const auto [it, fresh] = place_.try_emplace(name, file->get());
    if (!fresh) {
      return ConfigError(fmt::format("tensor {} is in two files: {} and {}", Printable(name),
                                     it->second->path(), path));
    }
  }
  files_.push_back(*std::move(file));
  return absl::OkStatus();
}

// A shard is a safetensors file of the directory itself, whatever an index may say.
bool IsPlainName(const std::string& name) {
  return absl::EndsWith(name, ".safetensors") &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos &&
         name.front() != '.';
}

absl::Status MappedWeights::OpenSharded(Fs& fs) {
  index_file_ = kIndex;
  const std::string path = JoinPath(directory_, kIndex);
  if (!IsRegularFile(path)) return ConfigError(path + " is not a regular file");
  const auto text = fs.ReadFile(path);
  if (!text.ok()) return Reclassify(text.status(), ExitCode::kConfig);
  const auto index = ParseStrictJson(*text);
  if (!index.ok()) return Annotate(Reclassify(index.status(), ExitCode::kConfig), path);
  const auto map = index->find("weight_map");
  if (!index->is_object() || map == index->end() || !map->is_object() || map->empty()) {
    return ConfigError(path + ": there is no weight_map that names the files of the tensors");
  }
  std::map<std::string, std::vector<std::string>> shards;  // file name → tensors
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsPlainName(file.get_ref<const std::string&>())) {
      return ConfigError(
          fmt::format("{}: tensor {} is not placed in a .safetensors file of this directory", path,
                      Printable(tensor)));
    }
    shards[file.get<std::string>()].push_back(tensor);
  }
  for (const auto& [file, tensors] : shards) {
    OSLER_RETURN_IF_ERROR(Add(fs, file));
    for (const std::string& tensor : tensors) {
      if (files_.back()->tensors().contains(tensor)) continue;
      return ConfigError(fmt::format("{} places tensor {} in {}, which does not hold it", path,
                                     Printable(tensor), file));
    }
  }
  return absl::OkStatus();
}

absl::Status NothingToLoad(Fs& fs, const std::string& directory) {
  if (!fs.IsDirectory(directory))
    return ConfigError(directory + " is not a model directory: it does not exist");
  const auto names = fs.List(directory);
  if (!names.ok()) return Reclassify(names.status(), ExitCode::kConfig);
  for (const std::string& name : *names) {
    if (absl::EndsWith(name, ".bin") || absl::EndsWith(name, ".pt") ||
        absl::EndsWith(name, ".pth")) {
      return ConfigError(fmt::format(
          "{} holds {}, a pickle, and no {}: Osler never reads pickles, convert the model to "
          "safetensors (save_pretrained of transformers writes them)",
          directory, Printable(name), kSingle));
    }
  }
  return ConfigError(fmt::format("{} holds no weights: want {} or {}", directory, kSingle, kIndex));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightDirectory>> WeightDirectory::Open(
    Fs& fs, const std::string& directory) {
  auto weights = std::make_unique<MappedWeights>(directory);
  if (fs.Exists(JoinPath(directory, kSingle))) {  // transformers prefers it too
    OSLER_RETURN_IF_ERROR(weights->OpenSingle(fs));
  } else if (fs.Exists(JoinPath(directory, kIndex))) {
    OSLER_RETURN_IF_ERROR(weights->OpenSharded(fs));
  } else {
    return NothingToLoad(fs, directory);
  }
  weights->Sort();
  return weights;
}

}  // namespace osler
