#include "data/sources/source.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/errors.h"
#include "base/status_macros.h"
#include "data/sources/chat_jsonl.h"
#include "data/sources/csv_rows.h"
#include "data/sources/field_map.h"
#include "data/sources/json_items.h"
#include "data/sources/json_lines.h"
#include "data/sources/text_rows.h"
#include "data/sources/tokens_jsonl.h"

namespace osler {
namespace {

using OpenRows = std::function<absl::StatusOr<std::unique_ptr<RowReader>>(TextFile)>;
using MakeRecord = std::function<absl::StatusOr<RawRecord>(nlohmann::json, const Origin&)>;

// What a format means: how its files become rows, and rows records.
struct Format {
  OpenRows open;
  MakeRecord make;
  Directories directories = Directories::kRefused;
};

// The rows of one file after another.
class FileSource : public Source {
 public:
  FileSource(Fs& fs, Format format, std::vector<std::string> files, int64_t size, bool trusted)
      : fs_(fs),
        format_(std::move(format)),
        files_(std::move(files)),
        size_(size),
        trusted_(trusted) {}

  absl::StatusOr<std::optional<RawRecord>> Next() override {
    while (true) {
      if (rows_ == nullptr) {
        if (next_file_ == files_.size()) return std::nullopt;
        OSLER_RETURN_IF_ERROR(OpenFile(files_[next_file_++]));
      }
      absl::StatusOr<std::optional<nlohmann::json>> row = rows_->Next();
      origin_ = rows_->origin();
      if (!row.ok()) {
        ++number_;
        return row.status();
      }
      if (row->has_value()) return Make(**std::move(row));
      done_bytes_ += rows_->position();
      rows_.reset();
    }
  }
  const Origin& origin() const override { return origin_; }
  int64_t position() const override {
    return done_bytes_ + (rows_ == nullptr ? 0 : rows_->position());
  }
  int64_t size() const override { return size_; }

 private:
  absl::Status OpenFile(const std::string& path) {
    OSLER_ASSIGN_OR_RETURN(TextFile file, OpenTextFile(fs_, path));
    file_name_ = path.substr(path.rfind('/') + 1);
    OSLER_ASSIGN_OR_RETURN(rows_, format_.open(std::move(file)));
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<RawRecord>> Make(nlohmann::json row) {
    ++number_;
    if (row.is_object()) {
      row.emplace("$key", number_);
      row.emplace("$file", file_name_);
    }
    OSLER_ASSIGN_OR_RETURN(RawRecord record, format_.make(std::move(row), origin_));
    record.trusted = trusted_;
    return std::optional<RawRecord>(std::move(record));
  }

  Fs& fs_;
  const Format format_;
  const std::vector<std::string> files_;
  const int64_t size_;
  const bool trusted_;
  size_t next_file_ = 0;
  std::string file_name_;  // without its directory
  std::unique_ptr<RowReader> rows_;
  Origin origin_;
  int64_t number_ = 0;  // of the record, over all files
  int64_t done_bytes_ = 0;
};

absl::StatusOr<std::unique_ptr<RowReader>> OpenJsonLines(TextFile file) {
  return std::make_unique<JsonLines>(std::move(file));
}

OpenRows CsvOpener(const config::Source& options, const FieldMap& map) {
  CsvOptions csv;
  if (options.has_delimiter()) csv.delimiter = options.delimiter().front();
  csv.columns = map.Fields();
  return [csv](TextFile file) -> absl::StatusOr<std::unique_ptr<RowReader>> {
    return CsvRows::Open(std::move(file), csv);
  };
}

absl::StatusOr<Format> MappedFormat(const config::Source& options) {
  OSLER_ASSIGN_OR_RETURN(FieldMap map, FieldMap::Create(options));
  Format format;
  switch (options.format()) {
    case config::QA_JSONL: format.open = OpenJsonLines; break;
    case config::QA_JSON:
      format.open =
          [name = options.records()](TextFile file) -> absl::StatusOr<std::unique_ptr<RowReader>> {
        return std::make_unique<JsonItems>(std::move(file), name);
      };
      break;
    case config::CSV: format.open = CsvOpener(options, map); break;
    case config::TEXT:
      format.directories = Directories::kListed;
      format.open = [separator = options.separator()](
                        TextFile file) -> absl::StatusOr<std::unique_ptr<RowReader>> {
        return std::make_unique<TextRows>(std::move(file), separator);
      };
      break;
    default: return ConfigError("sources: unknown format");
  }
  format.make = [map = std::move(map)](nlohmann::json row, const Origin& origin) {
    return map.Map(std::move(row), origin);
  };
  return format;
}

absl::StatusOr<Format> FormatOf(const config::Source& options) {
  switch (options.format()) {
    case config::CHAT_JSONL: return Format{OpenJsonLines, ParseChatRecord};
    case config::TOKENS_JSONL: return Format{OpenJsonLines, ParseTokenRecord};
    default: return MappedFormat(options);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Source>> OpenSource(Fs& fs, const config::Source& options) {
  OSLER_ASSIGN_OR_RETURN(Format format, FormatOf(options));
  OSLER_ASSIGN_OR_RETURN(std::vector<std::string> files,
                         SourceFiles(fs, options.path(), format.directories));
  int64_t size = 0;
  for (const std::string& file : files) {
    const auto bytes = fs.Size(file);
    if (!bytes.ok()) return Reclassify(bytes.status(), ExitCode::kData);
    size += *bytes;
  }
  return std::make_unique<FileSource>(fs, std::move(format), std::move(files), size,
                                      options.trusted());
}

}  // namespace osler
