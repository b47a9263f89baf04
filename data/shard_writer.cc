#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
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
#include "base/status_macros.h"
#include "data/manifest.h"
#include "data/shard.h"
#include "data/shard_file_writer.h"
#include "data/shard_format.h"

namespace osler {
namespace {

constexpr int64_t kBufferBytes = 32 << 20;  // over all unfinished shards
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

// Puts the traces of crashed builds in order: an older directory that was moved aside and never replaced comes
// back, everything else unfinished goes.
absl::Status CleanUp(Fs& fs, const std::string& directory) {
  const std::string parent = ParentDirectory(directory), base = BaseName(directory);
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(parent));
  for (const std::string& name : names) {
    const std::string path = JoinPath(parent, name);
    if (absl::StartsWith(name, base + kAside)) {
      if (InUse(name.substr(base.size() + sizeof kAside - 1))) continue;
      OSLER_RETURN_IF_ERROR(fs.Exists(directory) ? fs.RemoveTree(path) : fs.Rename(path, directory));
    } else if (absl::StartsWith(name, base + kTemporary)) {
      if (InUse(name.substr(base.size() + sizeof kTemporary - 1))) continue;
      LogInfo("removing {}, left by a build that did not finish", path);
      OSLER_RETURN_IF_ERROR(fs.RemoveTree(path));
    }
  }
  return absl::OkStatus();
}

// Refuses to replace a directory that holds anything but shards: a mistyped path must not cost the user's files.
absl::Status CheckReplaceable(Fs& fs, const std::string& directory) {
  if (!fs.Exists(directory)) return absl::OkStatus();
  const std::string advice = "; choose another output path, or remove it yourself";
  if (!fs.IsDirectory(directory)) return ConfigError(absl::StrCat(directory, " is no directory", advice));
  const std::set<std::string> ours = {kIndexName, kCertificateName, kReportName, kManifestName,
                                      kLengthsDirectory};
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(directory));
  for (const std::string& name : names) {
    const bool shard = absl::StartsWith(name, "shard-") && absl::EndsWith(name, ".osd");
    if (shard || ours.contains(name)) continue;
    return ConfigError(absl::StrCat(directory, " holds '", name, "', which no shard directory has", advice));
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
  std::vector<ShardFileWriter> shards;
  std::unordered_map<std::string, uint32_t> shard_of_subject;
  ShardIndex index;
  PartCompressor compressor;
  Sha256 data_digest;
  int64_t buffered = 0;
  bool committed = false;
  absl::Status failure;  // the first; a writer that failed once never commits

  State(Fs& file_system, ShardWriterOptions writer_options)
      : fs(file_system), options(std::move(writer_options)) {}

  uint32_t ChooseShard(const std::string& subject, int64_t bytes);
  absl::Status Append(const CleanRecord& record);
  absl::StatusOr<ManifestFile> Write(const char* name, const std::string& content);
  absl::StatusOr<Manifest> WriteFiles();
  absl::Status Publish();
  absl::Status Commit();
};

uint32_t ShardWriter::State::ChooseShard(const std::string& subject, int64_t bytes) {
  if (!subject.empty()) {
    const auto known = shard_of_subject.find(subject);
    if (known != shard_of_subject.end()) return known->second;
  }
  if (shards.empty() || (shards.back().payload_bytes() > 0 &&
                         shards.back().payload_bytes() + bytes > options.shard_bytes)) {
    shards.emplace_back(fs, temporary, ShardFileName(static_cast<int64_t>(shards.size())));
  }
  const auto shard = static_cast<uint32_t>(shards.size() - 1);
  if (!subject.empty()) shard_of_subject.emplace(subject, shard);
  return shard;
}

absl::Status ShardWriter::State::Append(const CleanRecord& record) {
  OSLER_ASSIGN_OR_RETURN(const std::vector<RawPart> parts, EncodeBody(record.body()));
  UpdateDigest(record, parts, &data_digest);
  RecordHeader header{record.id(), record.subject(), {}};
  std::vector<std::string> stored(parts.size());
  int64_t bytes = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const PartCodec codec = compressor.Encode(parts[i], &stored[i]);
    header.parts.push_back({parts[i].kind, parts[i].type, codec, Crc32c(stored[i]), 0, stored[i].size(),
                            parts[i].bytes.size()});
    bytes += static_cast<int64_t>(stored[i].size());
  }
  const uint32_t shard = ChooseShard(record.subject(), bytes);
  const bool tokens = record.body().is_tokens();
  const uint32_t row =
      shards[shard].Add(std::move(header), stored, tokens ? RecordKind::kTokens : RecordKind::kChat,
                        static_cast<uint32_t>(record.body().input_ids.size()));
  index.entries.push_back({shard, row});
  buffered += bytes;
  if (buffered <= kBufferBytes) return absl::OkStatus();
  for (ShardFileWriter& file : shards) {
    if (file.buffered_bytes() > 0) OSLER_RETURN_IF_ERROR(file.Flush());
  }
  buffered = 0;
  return absl::OkStatus();
}

absl::StatusOr<ManifestFile> ShardWriter::State::Write(const char* name, const std::string& content) {
  OSLER_ASSIGN_OR_RETURN(const auto file, fs.Open(JoinPath(temporary, name), OpenMode::kTruncate));
  OSLER_RETURN_IF_ERROR(file->Append(content));
  OSLER_RETURN_IF_ERROR(file->Sync());
  OSLER_RETURN_IF_ERROR(file->Close());
  return ManifestFile{name, static_cast<int64_t>(content.size()), Sha256Hex(content), 0};
}

absl::StatusOr<Manifest> ShardWriter::State::WriteFiles() {
  Manifest manifest;
  manifest.records = static_cast<int64_t>(index.entries.size());
  manifest.data_digest = data_digest.Hex();
  for (ShardFileWriter& shard : shards) {
    OSLER_ASSIGN_OR_RETURN(ManifestFile file, shard.Finish());
    manifest.shards.push_back(std::move(file));
  }
  Certificate& certificate = options.certificate;
  if (certificate.build_id.empty()) certificate.build_id = BuildId(manifest, certificate, options.report_json);
  manifest.build_id = index.build_id = certificate.build_id;
  OSLER_ASSIGN_OR_RETURN(manifest.index, Write(kIndexName, EncodeIndex(index)));
  OSLER_ASSIGN_OR_RETURN(manifest.certificate, Write(kCertificateName, WriteCertificate(certificate)));
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
  if (!state_->committed) state_->fs.RemoveTree(state_->temporary).IgnoreError();  // the next build tries again
}

absl::StatusOr<std::unique_ptr<ShardWriter>> ShardWriter::Create(Fs& fs, ShardWriterOptions options) {
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
  return std::unique_ptr<ShardWriter>(new ShardWriter(std::move(state)));
}

absl::Status ShardWriter::Append(const CleanRecord& record) {
  if (!state_->failure.ok()) return state_->failure;
  const int64_t number = static_cast<int64_t>(state_->index.entries.size());
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
