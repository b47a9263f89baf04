#include "checkpoint/merge.h"

#include <fmt/format.h>
#include <unistd.h>

#include <map>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/errors.h"
#include "checkpoint/manifest.h"
#include "checkpoint/reader.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/store.h"
#include "checkpoint/store_internal.h"

namespace osler {
namespace {

absl::StatusOr<ManifestFile> MergeGroup(Fs& fs, CheckpointReader& reader, const std::string& group,
                                        const std::string& directory) {
  std::vector<TensorToWrite> tensors;
  std::vector<const CheckpointReader::Stored*> sources;
  for (const auto& [name, stored] : reader.groups().at(group)) {
    tensors.push_back({name, stored.dtype, stored.shape, {}});
    sources.push_back(&stored);
  }
  at::Tensor made;  // the one that is being written
  const auto bytes_of = [&](size_t i) -> absl::StatusOr<std::string_view> {
    made.reset();
    OSLER_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
      OSLER_ASSIGN_OR_RETURN(made, reader.Whole(tensors[i].name, *sources[i]));
      return absl::OkStatus();
    }));
    return ToWrite(tensors[i].name, made).bytes;
  };
  const std::string name = group + kTensorFileSuffix;
  OSLER_ASSIGN_OR_RETURN(const WrittenFile written,
                         WriteSafetensors(fs, JoinPath(directory, name), tensors,
                                          {{"format", "pt"}}, bytes_of, nullptr));
  return ManifestFile{name, written.size, written.crc32c, static_cast<int64_t>(tensors.size())};
}

absl::Status Merge(Fs& fs, CheckpointReader& reader, CheckpointStore& store,
                   const std::string& temporary, int64_t step) {
  std::vector<ManifestFile> files;
  for (const auto& [group, tensors] : reader.groups()) {
    OSLER_ASSIGN_OR_RETURN(ManifestFile file, MergeGroup(fs, reader, group, temporary));
    files.push_back(std::move(file));
  }
  OSLER_ASSIGN_OR_RETURN(const auto texts, reader.Texts());
  return store.Commit(temporary, step, std::move(files), texts);
}

}  // namespace

absl::Status MergeCheckpoint(Fs& fs, const std::string& step_directory, int64_t step,
                             const std::string& output) {
  CheckpointStore store(fs, output, 0);
  if (fs.Exists(store.StepDirectory(step))) {
    return CheckpointError(store.StepDirectory(step) +
                           " is there already: choose another --output, or remove it");
  }
  auto reader = CheckpointReader::Open(fs, step_directory, step);
  absl::Status status = reader.status();
  if (status.ok()) status = reader->CheckOpened();
  if (!status.ok()) return AsCheckpointError(status, step_directory);
  int64_t bytes = 0;
  for (const ManifestFile& file : reader->manifest().files) bytes += file.size;
  const std::string temporary = store.TemporaryDirectory(step, getpid());
  OSLER_RETURN_IF_ERROR(store.Begin(temporary, bytes));
  status = Merge(fs, *reader, store, temporary, step);
  if (!status.ok()) store.Discard(temporary);
  return AsCheckpointError(status, output);
}

}  // namespace osler
