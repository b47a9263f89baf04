#include "data/build.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "data/encoder.h"
#include "data/lengths.h"
#include "data/output_directory.h"
#include "data/shard.h"
#include "data/sources/reject.h"
#include "data/sources/source.h"
#include "data/split.h"

namespace osler {
namespace {

constexpr size_t kBatchRecords = 512;
constexpr size_t kBatchBytes = size_t{8} << 20;
constexpr int64_t kProgressUnit = 1000;  // bytes: kB

// Of class data unless it has a class already (file errors have none).
absl::Status AsData(const absl::Status& status) {
  return ExitCodeOf(status) == ExitCode::kBug ? Reclassify(status, ExitCode::kData) : status;
}

bool HasTarget(const RecordBody& body) {
  if (body.kind() == RecordKind::kText) return true;
  if (!body.is_tokens()) {
    return std::any_of(body.messages.begin(), body.messages.end(),
                       [](const Message& message) { return message.role == "assistant"; });
  }
  // The first label has no position that predicts it.
  return std::any_of(body.labels.begin() + 1, body.labels.end(),
                     [](int32_t label) { return label != kIgnore; });
}

size_t SizeOf(const RawRecord& record) {
  size_t bytes = 4 * record.body.input_ids.size() + record.body.text.size();
  for (const Message& message : record.body.messages) bytes += message.content.size();
  return bytes;
}

// One of the two outputs.
struct SplitWriter {
  std::unique_ptr<ShardWriter> writer;
  SplitReport report;
  std::unordered_set<std::string> subjects;  // clean codes
};

class Builder {
 public:
  Builder(Fs& fs, const config::Build& build, const BuildOptions& options)
      : fs_(fs), build_(build), options_(options) {}

  absl::StatusOr<BuildReport> Run();

 private:
  enum class Pass { kSurvey, kWrite };
  absl::Status Read(Pass pass);
  absl::Status ReadSource(Source& source, const config::Source& options, Pass pass,
                          SourceReport& report, Progress& progress);
  absl::Status Skip(const config::Source& source, const absl::Status& why, int64_t line,
                    SourceReport& report);
  absl::Status CheckTarget(const config::Source& source, const RawRecord& record) const;
  absl::Status Flush(const config::Source& source, SourceReport& report);
  absl::Status Append(const std::string& raw_subject, const CleanRecord& record);
  absl::StatusOr<std::unique_ptr<ShardWriter>> MakeWriter(const OutputDirectory& output,
                                                          const std::string& split);
  absl::StatusOr<BuildReport> WriteSplits(OutputDirectory& output);
  absl::Status MeasureLengths(const std::string& directory);
  Certificate MakeCertificate() const;

  Fs& fs_;
  const config::Build& build_;
  const BuildOptions& options_;
  std::unique_ptr<DeidGate> gate_;
  std::unique_ptr<RecordEncoder> encoder_;
  BuildReport report_;
  int64_t done_bytes_ = 0;
  std::unordered_set<std::string> raw_subjects_, held_out_;
  SplitWriter train_, validation_;
  std::vector<RawRecord> batch_;
  size_t batch_bytes_ = 0;
};

absl::StatusOr<BuildReport> Builder::Run() {
  OSLER_ASSIGN_OR_RETURN(gate_, DeidGate::Create(build_.deid()));
  if (!options_.model_directory.empty()) {
    OSLER_ASSIGN_OR_RETURN(encoder_, RecordEncoder::Create(fs_, options_.model_directory));
  }
  report_.profile = "safe_harbor";
  report_.policy_digest = gate_->PolicyDigest();
  auto output = OutputDirectory::Open(fs_, build_.output().path());
  if (!output.ok()) return AsData(output.status());
  if (absl::Status status = Read(Pass::kSurvey); !status.ok()) return AsData(status);
  if (raw_subjects_.empty()) {
    return DataError("the sources hold no record that can be used: nothing to write");
  }
  held_out_ = HeldOutSubjects(raw_subjects_, build_.split().validation(), build_.split().seed());
  if (build_.split().validation() > 0 && held_out_.empty()) {
    LogWarning(
        "the sources hold one subject only: all of it is training data, validation is not written");
  }
  auto report = WriteSplits(*output);
  if (!report.ok()) return AsData(report.status());
  return report;
}

absl::Status Builder::Read(Pass pass) {
  report_.sources.clear();
  std::vector<std::unique_ptr<Source>> opened;
  int64_t total = 0;
  for (const config::Source& source : build_.sources()) {
    auto file = OpenSource(fs_, source);
    if (!file.ok()) return Annotate(AsData(file.status()), absl::StrCat("source ", source.name()));
    total += (*file)->size();
    opened.push_back(*std::move(file));
  }
  Progress progress(pass == Pass::kSurvey ? "checking" : "de-identifying", total / kProgressUnit,
                    "kB");
  done_bytes_ = 0;
  for (int i = 0; i < build_.sources_size(); ++i) {
    SourceReport report;
    report.name = build_.sources(i).name();
    report.trusted = build_.sources(i).trusted();
    Source& source = *opened[static_cast<size_t>(i)];
    OSLER_RETURN_IF_ERROR(ReadSource(source, build_.sources(i), pass, report, progress));
    report_.sources.push_back(std::move(report));
    opened[static_cast<size_t>(i)].reset();
  }
  progress.Finish();
  return absl::OkStatus();
}

absl::Status Builder::ReadSource(Source& source, const config::Source& options, Pass pass,
                                 SourceReport& report, Progress& progress) {
  while (true) {
    absl::StatusOr<std::optional<RawRecord>> next = source.Next();
    progress.Update((done_bytes_ + source.position()) / kProgressUnit);
    if (next.ok() && !next->has_value()) break;
    ++report.records;
    absl::Status verdict = next.ok() ? CheckTarget(options, **next) : next.status();
    if (!verdict.ok()) {
      OSLER_RETURN_IF_ERROR(Skip(options, verdict, source.origin().line, report));
      continue;
    }
    if (pass == Pass::kSurvey) {
      raw_subjects_.insert((*next)->subject);
      continue;
    }
    batch_bytes_ += SizeOf(**next);
    batch_.push_back(*std::move(*next));
    if (batch_.size() == kBatchRecords || batch_bytes_ > kBatchBytes)
      OSLER_RETURN_IF_ERROR(Flush(options, report));
  }
  done_bytes_ += source.size();
  return Flush(options, report);
}

absl::Status Builder::CheckTarget(const config::Source& source, const RawRecord& record) const {
  if (source.no_target() == config::NoTarget::KEEP || HasTarget(record.body))
    return absl::OkStatus();
  const char* what =
      record.body.is_tokens() ? "every label after the first is -100" : "no assistant message";
  std::string why = absl::StrCat("record has no target to learn from (", what, ")");
  if (source.no_target() == config::NoTarget::STOP)
    why += "; fix it, or set no_target: skip or keep for this source";
  return Reject(record.origin, kNoTarget, why);
}

// OK if the source's policy says to go on; counts the record then.
absl::Status Builder::Skip(const config::Source& source, const absl::Status& why, int64_t line,
                           SourceReport& report) {
  const std::string reason = RejectReason(why);
  const bool skip = reason == kNoTarget ? source.no_target() == config::NoTarget::SKIP
                                        : source.on_error() == config::SKIP;
  if (reason.empty() || (!skip && reason == kNoTarget)) return why;
  if (!skip) {
    return WithReason(
        MakeError(ExitCode::kData,
                  absl::StrCat(why.message(), "; fix it, or set on_error: skip for this source")),
        reason);
  }
  Skipped& skipped = report.skipped[reason];
  if (++skipped.count <= static_cast<int64_t>(kLinesShown)) skipped.first_lines.push_back(line);
  return absl::OkStatus();
}

absl::Status Builder::Flush(const config::Source& source, SourceReport& report) {
  std::vector<std::string> subjects;
  std::vector<int64_t> lines;
  for (const RawRecord& raw : batch_) {
    subjects.push_back(raw.subject);
    lines.push_back(raw.origin.line);
  }
  const auto results = gate_->PassAll(std::exchange(batch_, {}), options_.threads);
  batch_bytes_ = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].ok()) {
      OSLER_RETURN_IF_ERROR(
          Skip(source, WithReason(results[i].status(), kRefused), lines[i], report));
      continue;
    }
    OSLER_RETURN_IF_ERROR(Append(subjects[i], *results[i]));
    ++report.kept;
  }
  return absl::OkStatus();
}

absl::Status Builder::Append(const std::string& raw_subject, const CleanRecord& record) {
  SplitWriter& split = held_out_.contains(raw_subject) ? validation_ : train_;
  ++split.report.records;
  if (split.subjects.insert(record.subject()).second) ++split.report.subjects;
  return split.writer->Append(record);
}

absl::StatusOr<std::unique_ptr<ShardWriter>> Builder::MakeWriter(const OutputDirectory& output,
                                                                 const std::string& split) {
  ShardWriterOptions options;
  options.directory = output.Staged(split);
  options.shard_bytes = build_.output().shard_mb() << 20;
  return ShardWriter::Create(fs_, std::move(options));
}

Certificate Builder::MakeCertificate() const {
  Certificate certificate;
  certificate.profile = report_.profile;
  certificate.policy_digest = report_.policy_digest;
  certificate.tool_version = options_.tool_version;
  for (const config::Source& source : build_.sources()) {
    if (source.trusted()) certificate.trusted_sources.push_back(source.name());
  }
  certificate.identifiers = report_.identifiers;
  return certificate;
}

absl::Status Builder::MeasureLengths(const std::string& directory) {
  OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<ShardReader> reader,
                         ShardReader::Open(fs_, directory));
  return EnsureLengths(fs_, *reader, *encoder_, options_.threads).status();
}

absl::StatusOr<BuildReport> Builder::WriteSplits(OutputDirectory& output) {
  const std::array<std::pair<std::string, SplitWriter*>, 2> splits = {
      {{"train", &train_}, {"validation", &validation_}}};
  for (const auto& [name, split] : splits) {
    OSLER_ASSIGN_OR_RETURN(split->writer, MakeWriter(output, name));
  }
  OSLER_RETURN_IF_ERROR(Read(Pass::kWrite));
  report_.identifiers = gate_->counts();
  report_.train = train_.report;
  report_.validation = validation_.report;
  std::vector<std::string> published;
  for (const auto& [name, split] : splits) {
    if (split->report.records == 0) {
      if (split == &train_) return DataError("no record is left for training: nothing to write");
      if (!held_out_.empty()) LogWarning("no record is left for validation: it is not written");
      split->writer.reset();
      continue;
    }
    split->writer->SetCertificate(MakeCertificate(), ReportJson(report_, name));
    OSLER_RETURN_IF_ERROR(split->writer->Commit());
    if (encoder_ != nullptr) OSLER_RETURN_IF_ERROR(MeasureLengths(output.Staged(name)));
    published.push_back(name);
  }
  OSLER_RETURN_IF_ERROR(output.Publish(published));
  return report_;
}

}  // namespace

absl::StatusOr<BuildReport> BuildShards(Fs& fs, const config::Build& build,
                                        const BuildOptions& options) {
  return Builder(fs, build, options).Run();
}

}  // namespace osler
