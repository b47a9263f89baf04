#include "configs/config.h"

#include <google/protobuf/descriptor.h>

#include "base/check.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "configs/validate.h"
#include "configs/yaml_to_proto.h"

namespace osler {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

void SetToDefault(const FieldDescriptor& field, Message& message) {
  const Reflection& r = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return r.SetInt32(&message, &field, field.default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64:
      return r.SetInt64(&message, &field, field.default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT64:
      return r.SetUInt64(&message, &field, field.default_value_uint64());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return r.SetDouble(&message, &field, field.default_value_double());
    case FieldDescriptor::CPPTYPE_BOOL:
      return r.SetBool(&message, &field, field.default_value_bool());
    case FieldDescriptor::CPPTYPE_ENUM:
      return r.SetEnum(&message, &field, field.default_value_enum());
    case FieldDescriptor::CPPTYPE_STRING:
      return r.SetString(&message, &field, field.default_value_string());
    default: OSLER_CHECK(false && "a field type that the schemas do not use");
  }
}

// Sets every field that the schema gives a default, in all messages below too.
void FillSchemaDefaults(Message& message) {
  const Reflection& r = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    if (field->message_type() == nullptr) {
      if (field->has_default_value() && !r.HasField(message, field)) SetToDefault(*field, message);
    } else if (!field->is_repeated()) {
      FillSchemaDefaults(*r.MutableMessage(&message, field));
    } else {
      for (int k = 0; k < r.FieldSize(message, field); ++k) {
        FillSchemaDefaults(*r.MutableRepeatedMessage(&message, field, k));
      }
    }
  }
}

void FillDefaults(config::Train& config) {
  FillSchemaDefaults(config);
  if (config.optimizer().betas_size() == 0) {
    config.mutable_optimizer()->add_betas(0.9);
    config.mutable_optimizer()->add_betas(0.999);
  }
}

void FillDefaults(config::Build& config) {
  const bool split = config.has_split();
  FillSchemaDefaults(config);
  if (!split) config.clear_split();  // absent means something: nothing is held out
}

absl::Status Validate(const config::Train& config, const SettingPlaces& places) {
  return ValidateTrain(config, places);
}
absl::Status Validate(const config::Build& config, const SettingPlaces& places) {
  return ValidateBuild(config, places);
}

template <typename Config>
absl::StatusOr<Config> Parse(const std::string& text, const std::string& name,
                             const std::vector<std::string>& overrides) {
  Config config;
  SettingPlaces places(name);
  OSLER_RETURN_IF_ERROR(FillFromYaml(text, config, places));
  for (const std::string& assignment : overrides) {
    OSLER_RETURN_IF_ERROR(ApplyOverride(assignment, config, places));
  }
  FillDefaults(config);
  OSLER_RETURN_IF_ERROR(Validate(config, places));
  return config;
}

template <typename Config>
absl::StatusOr<Config> Load(Fs& fs, const std::string& path,
                            const std::vector<std::string>& overrides) {
  const absl::StatusOr<std::string> text = fs.ReadFile(path);
  if (!text.ok()) return Reclassify(text.status(), ExitCode::kConfig);
  return Parse<Config>(*text, path, overrides);
}

}  // namespace

absl::StatusOr<config::Train> LoadTrainConfig(Fs& fs, const std::string& path,
                                              const std::vector<std::string>& overrides) {
  return Load<config::Train>(fs, path, overrides);
}

absl::StatusOr<config::Build> LoadBuildConfig(Fs& fs, const std::string& path,
                                              const std::vector<std::string>& overrides) {
  return Load<config::Build>(fs, path, overrides);
}

absl::StatusOr<config::Train> ParseTrainConfig(const std::string& text, const std::string& name,
                                               const std::vector<std::string>& overrides) {
  return Parse<config::Train>(text, name, overrides);
}

absl::StatusOr<config::Build> ParseBuildConfig(const std::string& text, const std::string& name,
                                               const std::vector<std::string>& overrides) {
  return Parse<config::Build>(text, name, overrides);
}

}  // namespace osler
