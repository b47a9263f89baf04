#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <unordered_map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "data/manifest.h"
#include "data/record_spool.h"
#include "data/shard.h"
#include "data/shard_file_writer.h"
#include "data/shard_format.h"

namespace osler {
namespace {

constexpr char kSpoolName[] = "records.spool";
constexpr char kTemporary[] = ".tmp-", kAside[] = ".old-";

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string WithoutSlash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

absl::Status AsData(const absl::Status& status) {
  return ExitCodeOf(status) == ExitCode::kBug ? Reclassify(status, ExitCode::kData) : status;
}

// Whether another living process writes this temporary directory.
bool InUse(absl::string_view pid_text) {
  int pid = 0;
  if (!absl::SimpleAtoi(pid_text, &pid) || pid <= 0 || pid == getpid()) return false;
  return kill(pid, 0) == 0 || errno == EPERM;
}

// Puts the traces of crashed builds in order: an older directory that was moved aside and never
// replaced comes back, everything else unfinished goes.
absl::Status CleanUp(Fs& fs, const std::string& directory) {
  const std::string parent = ParentDirectory(directory), base = BaseName(directory);
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(parent));
  for (const std::string& name : names) {
    const std::string path = JoinPath(parent, name);
    if (absl::StartsWith(name, base + kAside)) {
      if (InUse(name.substr(base.size() + sizeof kAside - 1))) continue;
      OSLER_RETURN_IF_ERROR(fs.Exists(directory) ? fs.RemoveTree(path)
                                                 : fs.Rename(path, directory));
    } else if (absl::StartsWith(name, base + kTemporary)) {
      if (InUse(name.substr(base.size() + sizeof kTemporary - 1))) continue;
      LogInfo("removing {}, left by a build that did not finish", path);
      OSLER_RETURN_IF_ERROR(fs.RemoveTree(path));
    }
  }
  return absl::OkStatus();
}

// Refuses to replace a directory that holds anything but shards: a mistyped path must not cost the
// user's files.
absl::Status CheckReplaceable(Fs& fs, const std::string& directory) {
  if (!fs.Exists(directory)) return absl::OkStatus();
  const std::string advice = "; choose another output path, or remove it yourself";
  if (!fs.IsDirectory(directory))
    return ConfigError(absl::StrCat(directory, " is no directory", advice));
  const std::set<std::string> ours = {kIndexName, kCertificateName, kReportName, kManifestName,
                                      kLengthsDirectory};
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(directory));
  for (const std::string& name : names) {
    const bool shard = absl::StartsWith(name, "shard-") && absl::EndsWith(name, ".osd");
    if (shard || ours.contains(name)) continue;
    return ConfigError(
        absl::StrCat(directory, " holds '", name, "', which no shard directory has", advice));
  }
  return absl::OkStatus();
}

void UpdateDigest(const CleanRecord& record, const std::vector<RawPart>& parts, Sha256* digest) {
  std::string head;
  PutU64(&head, record.id().size());
  PutU64(&head, record.subject().size());
  PutU64(&head, parts.size());
  digest->Update(head + record.id() + record.subject());
  for (const RawPart& part : parts) {
    std::string sizes;
    PutU64(&sizes, static_cast<uint64_t>(part.kind));
    PutU64(&sizes, part.bytes.size());
    digest->Update(sizes);
    digest->Update(part.bytes);
  }
}

}  // namespace

struct ShardWriter::State {
  Fs& fs;
  ShardWriterOptions options;
  std::string temporary;
  std::unique_ptr<RecordSpool> spool;
  Sha256 data_digest;
  bool committed = false;
  absl::Status failure;  // the first; a writer that failed once never commits

  State(Fs& file_system, ShardWriterOptions writer_options)
      : fs(file_system), options(std::move(writer_options)) {}

  std::vector<std::vector<size_t>> AssignShards() const;
  absl::Status Append(const CleanRecord& record);
  absl::StatusOr<ManifestFile> Write(const char* name, const std::string& content);
  absl::Status WriteShards(Manifest* manifest, ShardIndex* index);
  absl::StatusOr<Manifest> WriteFiles();
  absl::Status Publish();
  absl::Status Commit();
};

// The records of each shard file, in source order. Subjects fill files in the order in which they
// first appear, each whole; a record without a subject is one of its own.
std::vector<std::vector<size_t>> ShardWriter::State::AssignShards() const {
  const std::vector<SpooledRecord>& records = spool->records();
  std::unordered_map<std::string_view, size_t> unit_of_subject;
  std::vector<size_t> unit_of_record(records.size());
  std::vector<int64_t> unit_bytes;
  for (size_t i = 0; i < records.size(); ++i) {
    const std::string& subject = records[i].header.subject;
    size_t unit = unit_bytes.size();
    if (!subject.empty()) unit = unit_of_subject.try_emplace(subject, unit).first->second;
    if (unit == unit_bytes.size()) unit_bytes.push_back(0);
    unit_of_record[i] = unit;
    unit_bytes[unit] += records[i].bytes;
  }
  std::vector<size_t> shard_of_unit;
  int64_t filled = 0;
  size_t shard = 0;
  for (const int64_t bytes : unit_bytes) {
    if (filled > 0 && filled + bytes > options.shard_bytes) {
      ++shard;
      filled = 0;
    }
    filled += bytes;
    shard_of_unit.push_back(shard);
  }
  std::vector<std::vector<size_t>> shards(records.empty() ? 0 : shard + 1);
  for (size_t i = 0; i < records.size(); ++i) shards[shard_of_unit[unit_of_record[i]]].push_back(i);
  return shards;
}

absl::Status ShardWriter::State::Append(const CleanRecord& record) {
  OSLER_ASSIGN_OR_RETURN(const std::vector<RawPart> parts, EncodeBody(record.body()));
  UpdateDigest(record, parts, &data_digest);
  return spool->Append(record, parts);
}

absl::StatusOr<ManifestFile> ShardWriter::State::Write(const char* name,
                                                       const std::string& content) {
  OSLER_ASSIGN_OR_RETURN(const auto file, fs.Open(JoinPath(temporary, name), OpenMode::kTruncate));
  OSLER_RETURN_IF_ERROR(file->Append(content));
  OSLER_RETURN_IF_ERROR(file->Sync());
  OSLER_RETURN_IF_ERROR(file->Close());
  return ManifestFile{name, static_cast<int64_t>(content.size()), Sha256Hex(content), 0};
}

absl::Status ShardWriter::State::WriteShards(Manifest* manifest, ShardIndex* index) {
  OSLER_RETURN_IF_ERROR(spool->Finish());
  const std::vector<SpooledRecord>& records = spool->records();
  index->entries.resize(records.size());
  Progress progress("writing " + options.directory, spool->bytes(), "bytes");
  int64_t done = 0;
  for (const std::vector<size_t>& members : AssignShards()) {
    const auto shard = static_cast<uint32_t>(manifest->shards.size());
    OSLER_ASSIGN_OR_RETURN(const auto file,
                           ShardFileWriter::Create(fs, temporary, ShardFileName(shard)));
    for (const size_t record : members) {
      const SpooledRecord& spooled = records[record];
      OSLER_ASSIGN_OR_RETURN(const uint32_t row, file->Add(spooled, spool->Payload(spooled)));
      index->entries[record] = {shard, row};
      progress.Update(done += spooled.bytes);
    }
    OSLER_ASSIGN_OR_RETURN(ManifestFile listed, file->Finish());
    manifest->shards.push_back(std::move(listed));
  }
  progress.Finish();
  return spool->Remove();
}

absl::StatusOr<Manifest> ShardWriter::State::WriteFiles() {
  Manifest manifest;
  ShardIndex index;
  OSLER_RETURN_IF_ERROR(WriteShards(&manifest, &index));
  manifest.records = static_cast<int64_t>(index.entries.size());
  manifest.data_digest = data_digest.Hex();
  Certificate& certificate = options.certificate;
  if (certificate.build_id.empty())
    certificate.build_id = BuildId(manifest, certificate, options.report_json);
  manifest.build_id = index.build_id = certificate.build_id;
  OSLER_ASSIGN_OR_RETURN(manifest.index, Write(kIndexName, EncodeIndex(index)));
  OSLER_ASSIGN_OR_RETURN(manifest.certificate,
                         Write(kCertificateName, WriteCertificate(certificate)));
  OSLER_ASSIGN_OR_RETURN(manifest.report, Write(kReportName, options.report_json));
  return manifest;
}

absl::Status ShardWriter::State::Publish() {
  const std::string& target = options.directory;
  const std::string aside = absl::StrCat(target, kAside, getpid());
  const bool replaces = fs.Exists(target);
  if (replaces) {
    OSLER_RETURN_IF_ERROR(fs.Rename(target, aside));
    Failpoint("build aside");
  }
  if (absl::Status status = fs.Rename(temporary, target); !status.ok()) {
    if (replaces && !fs.Rename(aside, target).ok()) {
      return Annotate(AsData(status), absl::StrCat("the earlier shards stand in ", aside));
    }
    return status;
  }
  committed = true;
  OSLER_RETURN_IF_ERROR(fs.SyncDirectory(ParentDirectory(target)));
  Failpoint("build renamed");
  return replaces ? fs.RemoveTree(aside) : absl::OkStatus();
}

absl::Status ShardWriter::State::Commit() {
  OSLER_ASSIGN_OR_RETURN(const Manifest manifest, WriteFiles());
  OSLER_RETURN_IF_ERROR(fs.SyncDirectory(temporary));
  Failpoint("build manifest");
  OSLER_RETURN_IF_ERROR(Write(kManifestName, WriteManifest(manifest)).status());
  OSLER_RETURN_IF_ERROR(fs.SyncDirectory(temporary));
  Failpoint("build rename");
  return Publish();
}

ShardWriter::ShardWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}

ShardWriter::~ShardWriter() {
  if (!state_->committed)
    state_->fs.RemoveTree(state_->temporary).IgnoreError();  // the next build tries again
}

absl::StatusOr<std::unique_ptr<ShardWriter>> ShardWriter::Create(Fs& fs,
                                                                 ShardWriterOptions options) {
  options.directory = WithoutSlash(options.directory);
  if (options.directory.empty()) return ConfigError("no output directory is given for the shards");
  if (options.shard_bytes <= 0) return ConfigError("the size of a shard must be positive");
  if (options.report_json.empty()) options.report_json = "{}\n";
  const std::string parent = ParentDirectory(options.directory);
  OSLER_RETURN_IF_ERROR(AsData(fs.MakeDirectories(parent)));
  OSLER_RETURN_IF_ERROR(AsData(CleanUp(fs, options.directory)));
  OSLER_RETURN_IF_ERROR(AsData(CheckReplaceable(fs, options.directory)));
  auto state = std::make_unique<State>(fs, std::move(options));
  state->temporary = absl::StrCat(state->options.directory, kTemporary, getpid());
  OSLER_RETURN_IF_ERROR(AsData(fs.MakeDirectories(state->temporary)));
  std::unique_ptr<ShardWriter> writer(new ShardWriter(std::move(state)));  // cleans up from here on
  const std::string path = JoinPath(writer->state_->temporary, kSpoolName);
  absl::StatusOr<std::unique_ptr<RecordSpool>> spool = RecordSpool::Create(fs, path);
  if (!spool.ok()) return AsData(spool.status());
  writer->state_->spool = *std::move(spool);
  return writer;
}

absl::Status ShardWriter::Append(const CleanRecord& record) {
  if (!state_->failure.ok()) return state_->failure;
  const int64_t number = static_cast<int64_t>(state_->spool->records().size());
  state_->failure = Annotate(AsData(state_->Append(record)),
                             absl::StrCat(state_->options.directory, ": record ", number));
  return state_->failure;
}

void ShardWriter::SetCertificate(Certificate certificate, std::string report_json) {
  state_->options.certificate = std::move(certificate);
  state_->options.report_json = std::move(report_json);
}

absl::Status ShardWriter::Commit() {
  if (!state_->failure.ok()) return state_->failure;
  state_->failure = AsData(state_->Commit());
  return state_->failure;
}

}  // namespace osler
