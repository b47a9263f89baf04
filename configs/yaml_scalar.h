// One YAML scalar → one field of a protobuf message.
#pragma once

#include <string>

#include <google/protobuf/message.h>
#include <yaml-cpp/yaml.h>

#include "absl/status/status.h"

namespace osler {

// Sets the singular scalar `field`, or adds to the repeated one. The error ("expected …, found …")
// carries no place: the caller knows it.
absl::Status SetScalar(const YAML::Node& node, const google::protobuf::FieldDescriptor& field,
                       google::protobuf::Message& message);

// What stands in the file, for messages: "a list", "nothing", "'text'" (cut when long, control
// characters escaped).
std::string DescribeNode(const YAML::Node& node);

// At most `longest` bytes of `text`, on one line, control characters escaped, "…" where it was cut.
std::string Excerpt(const std::string& text, size_t longest);

// "FP32" → "fp32": the spelling of an enum value in YAML.
std::string EnumSpelling(const google::protobuf::EnumValueDescriptor& value);

}  // namespace osler
