#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "data/manifest.h"
#include "data/shard.h"
#include "data/shard_format.h"

namespace osler {
namespace {

// A file that cannot be read is named, with what to do; the system's reason stays in the message.
absl::Status Unreadable(const absl::Status& status, const std::string& path) {
  if (status.code() == absl::StatusCode::kNotFound) return DamagedFile(path, "is missing");
  return DamagedFile(path, absl::StrCat("cannot be read (", status.message(), ")"));
}

absl::StatusOr<std::string> ReadText(Fs& fs, const std::string& path) {
  absl::StatusOr<std::string> text = fs.ReadFile(path);
  if (!text.ok()) return Unreadable(text.status(), path);
  return text;
}

absl::Status CheckBuild(const std::string& build_id, const Manifest& manifest,
                        const std::string& path) {
  if (build_id == manifest.build_id) return absl::OkStatus();
  return DamagedFile(path, absl::StrCat("is of another build (", build_id.substr(0, 12), "…, not ",
                                        manifest.build_id.substr(0, 12), "…)"));
}

// SHA-256 of a mapped file a piece at a time, so that the bar moves.
std::string HashWithProgress(std::string_view bytes, int64_t before, Progress* progress) {
  constexpr size_t kPiece = 4 << 20;
  Sha256 digest;
  for (size_t at = 0; at < bytes.size(); at += kPiece) {
    digest.Update(bytes.substr(at, kPiece));
    progress->Update(before + static_cast<int64_t>(std::min(bytes.size(), at + kPiece)));
  }
  return digest.Hex();
}

}  // namespace

struct ShardReader::State {
  Fs& fs;
  std::string directory;
  Manifest manifest;
  Certificate certificate;
  ShardIndex index;
  std::vector<std::shared_ptr<const MappedFile>> files;
  std::vector<ShardView> shards;

  State(Fs& file_system, std::string path) : fs(file_system), directory(std::move(path)) {}
  std::string Path(const std::string& name) const { return JoinPath(directory, name); }
  absl::Status ReadSmallFiles();
  absl::Status OpenShards();
  absl::Status CheckIndex() const;
  absl::Status HashShards() const;
};

absl::Status ShardReader::State::ReadSmallFiles() {
  if (!fs.IsDirectory(directory)) {
    return DataError(absl::StrCat("there is no shard directory ", directory,
                                  ": build it with `osler data build`, ", "or correct the path"));
  }
  const std::string manifest_path = Path(kManifestName);
  OSLER_ASSIGN_OR_RETURN(const std::string manifest_text, ReadText(fs, manifest_path));
  OSLER_ASSIGN_OR_RETURN(manifest, ParseManifest(manifest_text, manifest_path));

  const std::string certificate_path = Path(kCertificateName);
  OSLER_ASSIGN_OR_RETURN(const std::string certificate_text, ReadText(fs, certificate_path));
  if (absl::StatusOr<Certificate> parsed = ParseCertificate(certificate_text, certificate_path);
      parsed.ok()) {
    OSLER_RETURN_IF_ERROR(CheckBuild(parsed->build_id, manifest, certificate_path));
  }
  OSLER_RETURN_IF_ERROR(CheckFile(manifest.certificate, certificate_text, certificate_path));
  OSLER_ASSIGN_OR_RETURN(certificate, ParseCertificate(certificate_text, certificate_path));

  const std::string report_path = Path(kReportName);
  OSLER_ASSIGN_OR_RETURN(const std::string report_text, ReadText(fs, report_path));
  OSLER_RETURN_IF_ERROR(CheckFile(manifest.report, report_text, report_path));

  const std::string index_path = Path(kIndexName);
  OSLER_ASSIGN_OR_RETURN(const std::string index_text, ReadText(fs, index_path));
  OSLER_ASSIGN_OR_RETURN(index, ParseIndex(index_text, index_path));
  OSLER_RETURN_IF_ERROR(CheckBuild(index.build_id, manifest, index_path));
  return CheckFile(manifest.index, index_text, index_path);
}

absl::Status ShardReader::State::OpenShards() {
  for (const ManifestFile& listed : manifest.shards) {
    const std::string path = Path(listed.name);
    absl::StatusOr<std::shared_ptr<const MappedFile>> file = fs.Map(path);
    if (!file.ok()) return Unreadable(file.status(), path);
    const std::string_view bytes = (*file)->data();
    if (static_cast<int64_t>(bytes.size()) != listed.bytes) {
      return DamagedFile(path, absl::StrCat("has ", bytes.size(), " bytes, but ", kManifestName,
                                            " says ", listed.bytes));
    }
    OSLER_ASSIGN_OR_RETURN(ShardView view, ShardView::Parse(bytes, path));
    if (view.records() != listed.records) {
      return DamagedFile(path, absl::StrCat("holds ", view.records(), " records, but ",
                                            kManifestName, " says ", listed.records));
    }
    files.push_back(*std::move(file));
    shards.push_back(std::move(view));
  }
  return absl::OkStatus();
}

// Every record of every shard stands in the index exactly once.
absl::Status ShardReader::State::CheckIndex() const {
  std::vector<std::vector<bool>> seen;
  for (const ShardView& shard : shards) seen.emplace_back(shard.records());
  bool good = static_cast<int64_t>(index.entries.size()) == manifest.records;
  for (const IndexEntry& entry : index.entries) {
    good = good && entry.shard < seen.size() && entry.entry < seen[entry.shard].size() &&
           !seen[entry.shard][entry.entry];
    if (!good) break;
    seen[entry.shard][entry.entry] = true;
  }
  if (good) return absl::OkStatus();
  return DamagedFile(Path(kIndexName), "does not list every record of the shards once");
}

absl::Status ShardReader::State::HashShards() const {
  int64_t total = 0, done = 0;
  for (const ManifestFile& listed : manifest.shards) total += listed.bytes;
  Progress progress("verifying " + directory, total, "bytes");
  for (size_t i = 0; i < shards.size(); ++i) {
    if (HashWithProgress(files[i]->data(), done, &progress) != manifest.shards[i].sha256) {
      return DamagedFile(shards[i].path(), absl::StrCat("is not the file that ", kManifestName,
                                                        " lists (SHA-256 differs)"));
    }
    done += manifest.shards[i].bytes;
  }
  progress.Finish();
  return absl::OkStatus();
}

ShardReader::ShardReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
ShardReader::~ShardReader() = default;

absl::StatusOr<std::unique_ptr<ShardReader>> ShardReader::Open(Fs& fs, const std::string& directory,
                                                               ShardCheck check) {
  auto state = std::make_unique<State>(fs, directory);
  OSLER_RETURN_IF_ERROR(state->ReadSmallFiles());
  OSLER_RETURN_IF_ERROR(state->OpenShards());
  OSLER_RETURN_IF_ERROR(state->CheckIndex());
  if (check == ShardCheck::kFull) OSLER_RETURN_IF_ERROR(state->HashShards());
  return std::unique_ptr<ShardReader>(new ShardReader(std::move(state)));
}

int64_t ShardReader::size() const { return static_cast<int64_t>(state_->index.entries.size()); }

absl::StatusOr<CleanRecord> ShardReader::Read(int64_t record) const {
  OSLER_CHECK(record >= 0 && record < size());
  const IndexEntry at = state_->index.entries[static_cast<size_t>(record)];
  absl::StatusOr<RecordContents> contents = state_->shards[at.shard].Read(at.entry);
  if (!contents.ok()) return Annotate(contents.status(), absl::StrCat("record ", record));
  return CleanRecord(std::move(contents->id), std::move(contents->subject),
                     std::move(contents->body));
}

RecordKind ShardReader::kind(int64_t record) const {
  OSLER_CHECK(record >= 0 && record < size());
  const IndexEntry at = state_->index.entries[static_cast<size_t>(record)];
  return state_->shards[at.shard].entry(at.entry).kind;
}

const Certificate& ShardReader::certificate() const { return state_->certificate; }
const std::string& ShardReader::digest() const { return state_->manifest.data_digest; }
const std::string& ShardReader::directory() const { return state_->directory; }
int64_t ShardReader::shard_files() const { return static_cast<int64_t>(state_->shards.size()); }

int64_t ShardReader::bytes() const {
  int64_t total = 0;
  for (const ManifestFile& file : state_->manifest.shards) total += file.bytes;
  return total;
}

}  // namespace osler
