#include "trainer/checkpoint_saver.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "parallel/small_values.h"

namespace osler {
namespace {

constexpr int kNice = 10;

// The files of one rank as a text for the first: a line each.
std::string ToText(const std::vector<ManifestFile>& files) {
  std::string text;
  for (const ManifestFile& file : files)
    absl::StrAppend(&text, file.name, " ", file.size, " ", file.crc32c, " ", file.tensors, "\n");
  return text;
}

std::vector<ManifestFile> FromText(const std::string& text) {
  std::vector<ManifestFile> files;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    files.push_back({fields.at(0), std::stoll(fields.at(1)),
                     static_cast<uint32_t>(std::stoul(fields.at(2))), std::stoll(fields.at(3))});
  }
  return files;
}

}  // namespace

absl::Status AgreeOnSave(Communicator& comm, const absl::Status& local) {
  const bool full = absl::IsResourceExhausted(local);
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(comm, full ? absl::OkStatus() : local));
  return AgreeOnStatus(comm, local);
}

CheckpointSaver::CheckpointSaver(CheckpointStore& store, Communicator& world, SaveMode mode)
    : store_(store),
      world_(world),
      mode_(mode),
      id_(BroadcastInt(world, getpid())),
      group_(world.Split(0, world.rank(), "checkpoint")) {}

CheckpointSaver::~CheckpointSaver() {
  if (thread_.joinable()) thread_.join();
}

absl::Status CheckpointSaver::Settle() {
  if (thread_.joinable()) thread_.join();
  ended_.store(false, std::memory_order_relaxed);
  return std::exchange(outcome_, absl::OkStatus());
}

// Null where a tensor is written from where it lies, or by another rank.
at::Tensor* CheckpointSaver::CopyOf(const StateEntry& entry) {
  if (!entry.written || (mode_ == SaveMode::kBlocking && entry.tensor.is_cpu())) return nullptr;
  at::Tensor& copy = staged_[absl::StrCat(entry.group, "/", entry.name)];
  if (!copy.defined()) copy = at::empty_like(entry.tensor, at::kCPU);
  return &copy;
}

void CheckpointSaver::Reserve(const CheckpointState& state) {
  for (const StateEntry& entry : state.tensors) {
    if (at::Tensor* copy = CopyOf(entry)) copy->zero_();  // touches the pages
  }
}

// A step's optimizer may change what is being written, so a copy is; and files are written from CPU
// memory.
void CheckpointSaver::Stage(CheckpointState& state) {
  for (StateEntry& entry : state.tensors) {
    at::Tensor* copy = CopyOf(entry);
    if (copy == nullptr) continue;
    copy->copy_(entry.tensor);
    entry.tensor = *copy;
  }
}

absl::Status CheckpointSaver::Prepare(Task& task) {
  return CatchTorch([&] {
    task.temporary = store_.TemporaryDirectory(task.step, id_);
    const absl::Status made = world_.rank() == 0
                                  ? store_.Begin(task.temporary, CheckpointBytes(task.state))
                                  : absl::OkStatus();
    return AgreeOnSave(world_, made);
  });
}

absl::Status CheckpointSaver::Save(int64_t step, CheckpointState state,
                                   std::optional<int64_t> best) {
  Task task{step, {}, std::move(state), best};
  OSLER_RETURN_IF_ERROR(Prepare(task));
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(world_, CatchTorch([&] {
                                        Stage(task.state);
                                        return absl::OkStatus();
                                      })));
  if (mode_ == SaveMode::kBlocking) {
    outcome_ = Write(task);
    ended_.store(true, std::memory_order_release);
    return absl::OkStatus();
  }
  thread_ = std::thread([this, own = std::move(task)] {
    setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);  // of this thread, on Linux
    outcome_ = Write(own);
    ended_.store(true, std::memory_order_release);
  });
  return absl::OkStatus();
}

absl::Status CheckpointSaver::Write(const Task& task) {
  const RankOf rank{group_->rank(), group_->size()};
  const bool first = rank.rank == 0;
  return CatchTorch([&]() -> absl::Status {
    const auto own = store_.WriteRank(task.temporary, rank, task.state);
    if (const absl::Status all = AgreeOnSave(*group_, own.status()); !all.ok()) {
      if (first) store_.Discard(task.temporary);
      return all;
    }
    std::vector<ManifestFile> files;
    for (const std::string& text : GatherText(*group_, ToText(*own))) {
      for (ManifestFile& file : FromText(text)) files.push_back(std::move(file));
    }
    const absl::Status committed = first
                                       ? store_.Commit(task.temporary, task.step, std::move(files),
                                                       task.state.texts, task.best)
                                       : absl::OkStatus();
    return AgreeOnSave(*group_, committed);
  });
}

}  // namespace osler
