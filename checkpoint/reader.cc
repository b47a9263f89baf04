#include "checkpoint/reader.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/part_metadata.h"
#include "checkpoint/store_internal.h"

namespace osler {
namespace {

absl::Status Damage(const std::string& file, const std::string& why) {
  return absl::DataLossError(file + ": " + why);
}

absl::Status CheckPlain(Fs& fs, const std::string& directory, const std::string& name) {
  const std::string path = JoinPath(directory, name);
  if (IsPlainFile(path)) return absl::OkStatus();
  return Damage(name, fs.Exists(path) ? "is a link or no regular file" : "is missing");
}

absl::StatusOr<Manifest> ReadManifest(Fs& fs, const std::string& directory, int64_t step) {
  OSLER_RETURN_IF_ERROR(CheckPlain(fs, directory, kManifestName));
  OSLER_ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(JoinPath(directory, kManifestName)));
  auto manifest = ParseManifest(text);
  if (!manifest.ok()) return Annotate(manifest.status(), kManifestName);
  if (manifest->step != step)
    return Damage(kManifestName, fmt::format("is of step {}", manifest->step));
  return manifest;
}

// What one file says of one of its tensors.
absl::StatusOr<TensorPart> PartOf(const SafetensorsFile& file, const std::string& name,
                                  const TensorInfo& info) {
  const auto found = file.metadata().find(name);
  if (found == file.metadata().end()) return WholeTensor(info.shape);
  auto part = ParsePart(found->second);
  const auto bad = [&](const std::string& why) {
    return Damage(file.path(), fmt::format("the part of {} {}", Printable(name), why));
  };
  if (!part.ok()) return bad(std::string(part.status().message()));
  if (info.shape != std::vector<int64_t>{part->count}) return bad("has not as many elements");
  return part;
}

// Whether pieces follow each other without a gap from 0 to `end`.
template <typename Piece, typename Begin, typename Count>
bool Tiles(const std::vector<Piece>& sorted, int64_t end, Begin begin, Count count) {
  int64_t at = 0;
  for (const Piece& one : sorted) {
    if (begin(one) != at) return false;
    at += count(one);
  }
  return at == end;
}

// Slices of one dim that make up the shape, each made up of flat ranges.
bool MakeUpWhole(const CheckpointReader::Stored& stored) {
  std::map<std::pair<int64_t, int64_t>, std::vector<const TensorPart*>> slices;
  const TensorPart& first = stored.pieces.front().part;
  for (const CheckpointReader::Piece& piece : stored.pieces) {
    if (piece.part.slice.dim != first.slice.dim) return false;
    if (piece.part.count > 0 || stored.pieces.size() == 1)
      slices[{piece.part.slice.begin, piece.part.slice.length}].push_back(&piece.part);
  }
  std::vector<std::pair<int64_t, int64_t>> cuts;
  for (auto& [cut, parts] : slices) {
    cuts.push_back(cut);
    std::sort(parts.begin(), parts.end(),
              [](const auto* a, const auto* b) { return a->begin < b->begin; });
    if (!Tiles(
            parts, SliceCount(first.shape, parts[0]->slice),
            [](const TensorPart* one) { return one->begin; },
            [](const TensorPart* one) { return one->count; }))
      return false;
  }
  return Tiles(
      cuts, first.shape[static_cast<size_t>(first.slice.dim)],
      [](const auto& cut) { return cut.first; }, [](const auto& cut) { return cut.second; });
}

}  // namespace

std::string_view GroupOfFile(std::string_view name) {
  constexpr std::string_view kSuffix = kTensorFileSuffix;
  if (name.size() < kSuffix.size() || name.substr(name.size() - kSuffix.size()) != kSuffix)
    return "";
  return name.substr(0, name.find('.'));
}

absl::StatusOr<CheckpointReader> CheckpointReader::Open(Fs& fs, const std::string& directory,
                                                        int64_t step,
                                                        const std::set<std::string>& groups) {
  CheckpointReader reader;
  reader.fs_ = &fs;
  reader.directory_ = directory;
  OSLER_ASSIGN_OR_RETURN(reader.manifest_, ReadManifest(fs, directory, step));
  reader.files_.resize(reader.manifest_.files.size());
  const absl::Status read = reader.ReadHeaders(groups);
  if (read.ok()) return reader;
  OSLER_RETURN_IF_ERROR(reader.CheckOpened());
  return read;
}

absl::Status CheckpointReader::ReadHeaders(const std::set<std::string>& groups) {
  for (size_t i = 0; i < files_.size(); ++i) {
    const ManifestFile& file = manifest_.files[i];
    const std::string group(GroupOfFile(file.name));
    if (file.tensors < 0 || (!groups.empty() && !groups.contains(group))) continue;
    OSLER_RETURN_IF_ERROR(AddTensors(i));
  }
  for (const auto& [group, tensors] : groups_) {
    for (const auto& [name, stored] : tensors) {
      if (MakeUpWhole(stored)) continue;
      return Damage(group, fmt::format("the parts of tensor {} do not make it up: a rank's file "
                                       "is missing, or of another save",
                                       Printable(name)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::OpenFile(size_t file) {
  const ManifestFile& listed = manifest_.files[file];
  if (files_[file].mapping != nullptr) return absl::OkStatus();
  OSLER_RETURN_IF_ERROR(CheckPlain(*fs_, directory_, listed.name));
  OSLER_ASSIGN_OR_RETURN(auto mapping, fs_->Map(JoinPath(directory_, listed.name)));
  const auto size = static_cast<int64_t>(mapping->data().size());
  if (size != listed.size) {
    return Damage(listed.name,
                  fmt::format("has {} bytes, its manifest says {}", size, listed.size));
  }
  files_[file].mapping = std::move(mapping);
  return absl::OkStatus();
}

absl::Status CheckpointReader::AddTensors(size_t file) {
  const ManifestFile& listed = manifest_.files[file];
  OSLER_RETURN_IF_ERROR(OpenFile(file));
  OSLER_ASSIGN_OR_RETURN(files_[file].tensors,
                         SafetensorsFile::Parse(listed.name, files_[file].mapping));
  const SafetensorsFile& tensors = *files_[file].tensors;
  const auto count = static_cast<int64_t>(tensors.tensors().size());
  if (count != listed.tensors) {
    return Damage(listed.name,
                  fmt::format("holds {} tensors, its manifest says {}", count, listed.tensors));
  }
  Group& group = groups_[std::string(GroupOfFile(listed.name))];
  for (const auto& [name, info] : tensors.tensors()) {
    OSLER_ASSIGN_OR_RETURN(TensorPart part, PartOf(tensors, name, info));
    const bool whole = !tensors.metadata().contains(name);
    const std::vector<int64_t>& shape = whole ? info.shape : part.shape;
    Stored& stored = group.try_emplace(name, Stored{info.dtype, shape, {}}).first->second;
    if (stored.dtype != info.dtype || stored.shape != shape) {
      return Damage(listed.name, fmt::format("tensor {} has another type or shape than its other "
                                             "parts",
                                             Printable(name)));
    }
    stored.pieces.push_back({file, std::move(part)});
  }
  return absl::OkStatus();
}

const CheckpointReader::Stored* CheckpointReader::Find(const std::string& group,
                                                       const std::string& name) const {
  const auto tensors = groups_.find(group);
  if (tensors == groups_.end()) return nullptr;
  const auto found = tensors->second.find(name);
  return found == tensors->second.end() ? nullptr : &found->second;
}

absl::StatusOr<std::string_view> CheckpointReader::Bytes(size_t file) {
  const ManifestFile& listed = manifest_.files[file];
  OSLER_RETURN_IF_ERROR(OpenFile(file));
  const std::string_view bytes = files_[file].mapping->data();
  if (!files_[file].verified) {
    if (Crc32c(bytes) != listed.crc32c) return Damage(listed.name, "checksum mismatch");
    files_[file].verified = true;
  }
  return bytes;
}

absl::StatusOr<std::map<std::string, std::string>> CheckpointReader::Texts() {
  std::map<std::string, std::string> texts;
  for (size_t i = 0; i < files_.size(); ++i) {
    if (manifest_.files[i].tensors >= 0) continue;
    OSLER_ASSIGN_OR_RETURN(const std::string_view text, Bytes(i));
    texts[manifest_.files[i].name] = std::string(text);
  }
  return texts;
}

absl::Status CheckpointReader::CheckOpened() {
  for (size_t i = 0; i < files_.size(); ++i) {
    if (files_[i].mapping != nullptr) OSLER_RETURN_IF_ERROR(Bytes(i).status());
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::Check(const Stored& stored, const TensorPart& part) {
  for (const Piece& piece : stored.pieces) {
    if (!files_[piece.file].verified && Overlap(piece.part, part))
      OSLER_RETURN_IF_ERROR(Bytes(piece.file).status());
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::Read(const std::string& name, const Stored& stored,
                                    const TensorPart& part, char* to) {
  const int64_t width = *DtypeBits(stored.dtype) / 8;
  for (const Piece& piece : stored.pieces) {
    OSLER_ASSIGN_OR_RETURN(const std::string_view bytes, files_[piece.file].tensors->Bytes(name));
    CopyOverlap(piece.part, bytes.data(), part, to, width);
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> CheckpointReader::Whole(const std::string& name, const Stored& stored) {
  const TensorPart all = WholeTensor(stored.shape);
  OSLER_RETURN_IF_ERROR(Check(stored, all));
  if (stored.pieces.size() == 1 && IsWhole(stored.pieces[0].part)) {
    OSLER_ASSIGN_OR_RETURN(at::Tensor one, files_[stored.pieces[0].file].tensors->Tensor(name));
    return one.view(stored.shape);
  }
  OSLER_ASSIGN_OR_RETURN(const at::ScalarType dtype, ScalarTypeOf(stored.dtype));
  at::Tensor made = at::empty(stored.shape, dtype);
  OSLER_RETURN_IF_ERROR(Read(name, stored, all, static_cast<char*>(made.mutable_data_ptr())));
  return made;
}

}  // namespace osler
