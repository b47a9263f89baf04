// YAML text → protobuf message by reflection: keys are field names, enum values are lower-case,
// every mistake is a config error that says where it stands. Thread-safe (no state).
//
// Accepted is the plain core of YAML 1.2: maps, lists, scalars, comments, quotes, anchors. Refused
// with a way out: several documents, merge keys, tags, duplicate keys, null values, yes/no for
// booleans, 8.0 or 010 for integers.
#pragma once

#include <map>
#include <string>

#include <google/protobuf/message.h>

#include "absl/status/status.h"

namespace osler {

// Where each setting was written ("train.yaml:12", "--set a.b=c"), by its path
// ("data.train.0.weight").
class SettingPlaces {
 public:
  explicit SettingPlaces(std::string file) : file_(std::move(file)) {}

  const std::string& file() const { return file_; }
  // Replaces what is known of `path` and of everything below it.
  void Set(const std::string& path, const std::string& place);
  // The place of `path`, else of its nearest parent that was written, else the file.
  std::string Of(std::string path) const;

 private:
  std::string file_;
  std::map<std::string, std::string> places_;
};

// Fills the empty `message` from `text`, the content of places.file().
absl::Status FillFromYaml(const std::string& text, google::protobuf::Message& message,
                          SettingPlaces& places);

// Applies "a.b=value" on top: a scalar, a whole list or map, or a part of a list item
// ("data.train.0.weight=2", where the index one past the end adds an item). Missing parents are
// made.
absl::Status ApplyOverride(const std::string& assignment, google::protobuf::Message& message,
                           SettingPlaces& places);

}  // namespace osler
