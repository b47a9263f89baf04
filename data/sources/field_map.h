// From the fields of an outside record to a RawRecord, as a source's configuration maps them: which
// template makes the id, the subject, the prompt, …; no code a data set.
//
// A row's fields are those of its JSON document, "$key" (the key under which it stands in its file,
// else its number in the source), "$file" (the file's name) and those of a choice (choice.h).
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "configs/schema/build.pb.h"
#include "configs/text_template.h"
#include "data/record.h"

namespace osler {

// Immutable and thread-safe.
class FieldMap {
 public:
  // `options` have passed ValidateBuild.
  static absl::StatusOr<FieldMap> Create(const config::Source& options);

  // Rejects a row that lacks a field, holds it in a type that cannot be used, or has nothing to
  // say; errors name the key of the map and the field.
  absl::StatusOr<RawRecord> Map(nlohmann::json row, const Origin& origin) const;

  // The outside fields that the map names, each once.
  std::vector<std::string> Fields() const;

 private:
  // A template that the configuration gives, with its key.
  struct Role {
    std::string key;
    TextTemplate parts;
  };
  explicit FieldMap(config::Source options) : options_(std::move(options)) {}
  absl::Status AddRole(const std::string& key, const std::string& text, std::optional<Role>& role);
  absl::StatusOr<std::string> Fill(const Role& role, const nlohmann::json& row,
                                   const Origin& origin) const;
  absl::Status MapIds(const nlohmann::json& row, RawRecord& record) const;
  absl::Status MapBody(const nlohmann::json& row, RawRecord& record) const;
  absl::Status MapKnown(const nlohmann::json& row, RawRecord& record) const;

  config::Source options_;
  std::optional<Role> id_, subject_, system_, prompt_, completion_, text_;
};

}  // namespace osler
