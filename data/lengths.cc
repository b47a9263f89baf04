#include "data/lengths.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "data/lengths_format.h"
#include "data/shard_format.h"

namespace osler {
namespace {

constexpr int64_t kChunk = 64;  // records a thread takes at a time

RecordLength Measure(const EncodedRecord& record) {
  RecordLength length;
  length.tokens = static_cast<uint32_t>(record.ids.size());
  for (size_t t = 1; t < record.labels.size(); ++t) {  // nothing predicts the first token
    if (record.labels[t] == kIgnore) continue;
    if (length.first_target == 0) length.first_target = static_cast<uint32_t>(t);
    length.last_target = static_cast<uint32_t>(t);
  }
  return length;
}

// Measures every record with a few threads. The error of the lowest record number wins, so that the
// same data fails with the same message whatever the threads do: chunks are taken in order, and a
// thread stops only at chunks behind the failed record.
class Measurer {
 public:
  Measurer(const ShardReader& shards, const RecordEncoder& encoder)
      : shards_(shards), encoder_(encoder), lengths_(static_cast<size_t>(shards.size())) {}

  absl::StatusOr<Lengths> Run(int threads) {
    Progress progress("measuring " + shards_.directory(), shards_.size(), "records");
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back([this] { Work(nullptr); });
    Work(&progress);
    for (std::thread& other : others) other.join();
    OSLER_RETURN_IF_ERROR(failure_);
    progress.Update(shards_.size());
    progress.Finish();
    return std::move(lengths_);
  }

 private:
  void Work(Progress* progress) {
    while (true) {
      const int64_t begin = next_.fetch_add(kChunk);
      if (begin >= std::min(shards_.size(), failed_record_.load())) return;
      const int64_t end = std::min(shards_.size(), begin + kChunk);
      for (int64_t record = begin; record < end; ++record) {
        if (absl::Status status = MeasureOne(record); !status.ok()) {
          Fail(record, std::move(status));
          return;
        }
      }
      const int64_t done = done_.fetch_add(end - begin) + end - begin;
      if (progress != nullptr) progress->Update(done);
    }
  }

  absl::Status MeasureOne(int64_t record) {
    OSLER_ASSIGN_OR_RETURN(const CleanRecord clean, shards_.Read(record));
    absl::StatusOr<EncodedRecord> encoded = encoder_.Encode(clean);
    if (!encoded.ok()) {
      return Annotate(encoded.status(), absl::StrCat(shards_.directory(), ": record ", record));
    }
    lengths_[static_cast<size_t>(record)] = Measure(*encoded);
    return absl::OkStatus();
  }

  void Fail(int64_t record, absl::Status status) {
    const std::lock_guard lock(mutex_);
    if (record >= failed_record_) return;
    failed_record_ = record;
    failure_ = std::move(status);
  }

  const ShardReader& shards_;
  const RecordEncoder& encoder_;
  Lengths lengths_;
  std::atomic<int64_t> next_{0}, done_{0}, failed_record_{INT64_MAX};
  std::mutex mutex_;
  absl::Status failure_;
};

// Several ranks may write the same sidecar at once: each under a name of its own, and any of them
// may win.
absl::Status WriteSidecar(Fs& fs, const std::string& path, const std::string& bytes) {
  OSLER_RETURN_IF_ERROR(fs.MakeDirectories(ParentDirectory(path)));
  const size_t thread = std::hash<std::thread::id>{}(std::this_thread::get_id());
  const std::string temporary = absl::StrCat(path, ".tmp-", getpid(), "-", absl::Hex(thread));
  const auto write = [&]() -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(const auto file, fs.Open(temporary, OpenMode::kTruncate));
    OSLER_RETURN_IF_ERROR(file->Append(bytes));
    OSLER_RETURN_IF_ERROR(file->Sync());
    OSLER_RETURN_IF_ERROR(file->Close());
    OSLER_RETURN_IF_ERROR(fs.Rename(temporary, path));
    return fs.SyncDirectory(ParentDirectory(path));
  };
  const absl::Status status = write();
  if (!status.ok() && fs.Exists(temporary))
    fs.Remove(temporary).IgnoreError();  // the first error counts
  return status;
}

std::string SidecarPath(const ShardReader& shards, const RecordEncoder& encoder) {
  return JoinPath(JoinPath(shards.directory(), kLengthsDirectory), encoder.digest() + ".bin");
}

LengthsKey KeyOf(const ShardReader& shards, const RecordEncoder& encoder) {
  return {shards.digest(), Sha256Hex(encoder.digest()), shards.size()};
}

absl::StatusOr<Lengths> ReadSidecar(Fs& fs, const std::string& path, const LengthsKey& key) {
  OSLER_ASSIGN_OR_RETURN(const std::string bytes, fs.ReadFile(path));
  return ParseLengths(bytes, key);
}

}  // namespace

std::optional<Lengths> FindLengths(Fs& fs, const ShardReader& shards,
                                   const RecordEncoder& encoder) {
  absl::StatusOr<Lengths> lengths =
      ReadSidecar(fs, SidecarPath(shards, encoder), KeyOf(shards, encoder));
  return lengths.ok() ? std::optional(*std::move(lengths)) : std::nullopt;
}

absl::StatusOr<Lengths> EnsureLengths(Fs& fs, const ShardReader& shards,
                                      const RecordEncoder& encoder, int threads) {
  const std::string path = SidecarPath(shards, encoder);
  const LengthsKey key = KeyOf(shards, encoder);
  if (fs.Exists(path)) {
    absl::StatusOr<Lengths> lengths = ReadSidecar(fs, path, key);
    if (lengths.ok()) return lengths;
    LogWarning("{} cannot be used ({}): measuring the records again", path,
               std::string(lengths.status().message()));
  }
  OSLER_ASSIGN_OR_RETURN(Lengths lengths, Measurer(shards, encoder).Run(std::max(1, threads)));
  if (const absl::Status status = WriteSidecar(fs, path, EncodeLengths(lengths, key));
      !status.ok()) {
    LogWarning(
        "the lengths of the records could not be kept ({}): the next run measures them again",
        std::string(status.message()));
  }
  return lengths;
}

}  // namespace osler
