#include "configs/yaml_to_proto.h"

#include <exception>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "configs/suggest.h"
#include "configs/yaml_scalar.h"

namespace osler {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr size_t kLongestFile = size_t{1} << 20;
constexpr size_t kLongestShown = 80;

std::string Shown(const std::string& text) { return Excerpt(text, kLongestShown); }

std::string Below(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

// One YAML text on its way into a message: the file, or the right side of one --set.
class Filler {
 public:
  Filler(std::string name, bool has_lines, const Descriptor& root, SettingPlaces& places)
      : name_(std::move(name)), has_lines_(has_lines), root_(root), places_(places) {}

  absl::StatusOr<YAML::Node> Load(const std::string& text) const;
  absl::Status FillMessage(const YAML::Node& node, const std::string& path, Message& message);
  absl::Status FillField(const YAML::Node& node, const std::string& path,
                         const FieldDescriptor& field, Message& message);
  absl::StatusOr<const FieldDescriptor*> FindField(const std::string& key, const std::string& path,
                                                   const Descriptor& message,
                                                   const YAML::Mark& mark) const;
  absl::Status AssignAt(const std::vector<std::string>& keys, size_t i, const std::string& path,
                        const YAML::Node& value, Message& message);

 private:
  absl::Status FillList(const YAML::Node& node, const std::string& path,
                        const FieldDescriptor& field, Message& message);
  absl::Status FillScalar(const YAML::Node& node, const std::string& path,
                          const FieldDescriptor& field, Message& message);
  absl::Status AssignInList(const std::vector<std::string>& keys, size_t i, const std::string& path,
                            const FieldDescriptor& field, const YAML::Node& value,
                            Message& message);
  std::string Place(const YAML::Mark& mark) const {
    return has_lines_ && !mark.is_null() ? fmt::format("{}:{}", name_, mark.line + 1) : name_;
  }
  // Where the value of `path` stands: an absent value stands at its key.
  std::string PlaceOf(const YAML::Node& node, const std::string& path) const {
    return node.IsNull() && !path.empty() ? places_.Of(path) : Place(node.Mark());
  }
  absl::Status Error(const YAML::Mark& mark, const std::string& message) const {
    return ConfigError(fmt::format("{}: {}", Place(mark), message));
  }

  const std::string name_;
  const bool has_lines_;
  const Descriptor& root_;
  SettingPlaces& places_;
};

// yaml-cpp takes 0x04 for the end of the file and 0x00 for the end of a token: what follows would
// be lost silently.
absl::Status CheckText(const std::string& text, const std::string& name) {
  if (text.size() > kLongestFile) {
    return ConfigError(fmt::format("{}: is {} bytes long, which is no configuration (at most {})",
                                   name, text.size(), kLongestFile));
  }
  size_t line = 1;
  for (const char c : text) {
    if (c == '\n') ++line;
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\r' && c != '\t') || byte == 0x7f) {
      return ConfigError(
          fmt::format("{}:{}: holds the control character 0x{:02x}; a configuration is UTF-8 text",
                      name, line, byte));
    }
  }
  return absl::OkStatus();
}

// Notes where the latest document begins.
class DocumentMarks : public YAML::EventHandler {
 public:
  const YAML::Mark& start() const { return start_; }
  void OnDocumentStart(const YAML::Mark& mark) override { start_ = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

 private:
  YAML::Mark start_;
};

// Not YAML::LoadAll: that makes documents without end of a text that begins with a stray ",".
absl::StatusOr<YAML::Node> Filler::Load(const std::string& text) const {
  OSLER_RETURN_IF_ERROR(CheckText(text, name_));
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    DocumentMarks marks;
    if (!parser.HandleNextDocument(marks)) return YAML::Node();
    if (parser.HandleNextDocument(marks)) {
      return Error(marks.start(),
                   "more text follows the end of the YAML document; keep one document only");
    }
    return YAML::Load(text);
  } catch (const YAML::Exception& e) {
    return Error(e.mark, "not valid YAML: " + e.msg);
  }
}

absl::StatusOr<const FieldDescriptor*> Filler::FindField(const std::string& key,
                                                         const std::string& path,
                                                         const Descriptor& message,
                                                         const YAML::Mark& mark) const {
  if (key == "<<") {
    return Error(mark, "merge keys (<<) are not supported; write the settings out");
  }
  const FieldDescriptor* field = message.FindFieldByName(key);
  if (field != nullptr) return field;
  return Error(mark, fmt::format("unknown key '{}'; {}", Below(path, Shown(key)),
                                 SuggestKey(key, message, root_)));
}

absl::Status Filler::FillMessage(const YAML::Node& node, const std::string& path,
                                 Message& message) {
  const Descriptor& type = *message.GetDescriptor();
  if (!node.IsMap()) {
    const std::string subject = path.empty() ? "" : path + ": ";
    const std::string advice = node.IsNull() ? "; delete the key to use the defaults" : "";
    return ConfigError(fmt::format("{}: {}expected a map such as {{{}: …}}, found {}{}",
                                   PlaceOf(node, path), subject, type.field(0)->name(),
                                   DescribeNode(node), advice));
  }
  std::set<std::string> seen;
  for (const auto& entry : node) {
    const YAML::Mark mark = entry.first.Mark();
    if (!entry.first.IsScalar()) return Error(mark, "a key is a plain word");
    const std::string& key = entry.first.Scalar();
    OSLER_ASSIGN_OR_RETURN(const FieldDescriptor* field, FindField(key, path, type, mark));
    if (!seen.insert(key).second) {
      return Error(mark,
                   fmt::format("key '{}' stands here a second time; keep one", Below(path, key)));
    }
    places_.Set(Below(path, key), Place(mark));
    OSLER_RETURN_IF_ERROR(FillField(entry.second, Below(path, key), *field, message));
  }
  return absl::OkStatus();
}

absl::Status Filler::FillField(const YAML::Node& node, const std::string& path,
                               const FieldDescriptor& field, Message& message) {
  if (field.is_repeated()) return FillList(node, path, field, message);
  if (field.message_type() == nullptr) return FillScalar(node, path, field, message);
  return FillMessage(node, path, *message.GetReflection()->MutableMessage(&message, &field));
}

absl::Status Filler::FillList(const YAML::Node& node, const std::string& path,
                              const FieldDescriptor& field, Message& message) {
  if (!node.IsSequence()) {
    const Descriptor* item = field.message_type();
    const std::string example =
        item == nullptr ? "[0.9, 0.999]" : fmt::format("[{{{}: …}}]", item->field(0)->name());
    return ConfigError(fmt::format("{}: {}: expected a list such as {}, found {}",
                                   PlaceOf(node, path), path, example, DescribeNode(node)));
  }
  size_t i = 0;
  for (const YAML::Node& item : node) {
    const std::string item_path = Below(path, std::to_string(i++));
    places_.Set(item_path, Place(item.Mark()));
    if (field.message_type() == nullptr) {
      OSLER_RETURN_IF_ERROR(FillScalar(item, item_path, field, message));
    } else {
      OSLER_RETURN_IF_ERROR(
          FillMessage(item, item_path, *message.GetReflection()->AddMessage(&message, &field)));
    }
  }
  return absl::OkStatus();
}

absl::Status Filler::FillScalar(const YAML::Node& node, const std::string& path,
                                const FieldDescriptor& field, Message& message) {
  return Annotate(SetScalar(node, field, message),
                  fmt::format("{}: {}", PlaceOf(node, path), path));
}

absl::Status Filler::AssignAt(const std::vector<std::string>& keys, size_t i,
                              const std::string& path, const YAML::Node& value, Message& message) {
  OSLER_ASSIGN_OR_RETURN(
      const FieldDescriptor* field,
      FindField(keys[i], path, *message.GetDescriptor(), YAML::Mark::null_mark()));
  const std::string here = Below(path, keys[i]);
  if (i + 1 == keys.size()) {
    message.GetReflection()->ClearField(&message, field);
    places_.Set(here, name_);
    return FillField(value, here, *field, message);
  }
  if (field->is_repeated()) return AssignInList(keys, i + 1, here, *field, value, message);
  if (field->message_type() == nullptr) {
    return ConfigError(
        fmt::format("{}: '{}' is a single value and has no '{}'", name_, here, Shown(keys[i + 1])));
  }
  return AssignAt(keys, i + 1, here, value,
                  *message.GetReflection()->MutableMessage(&message, field));
}

// keys[i] is the index of an item of the list `field`, whose path is `path`.
absl::Status Filler::AssignInList(const std::vector<std::string>& keys, size_t i,
                                  const std::string& path, const FieldDescriptor& field,
                                  const YAML::Node& value, Message& message) {
  const auto* reflection = message.GetReflection();
  const int size = reflection->FieldSize(message, &field);
  int index = 0;
  if (!absl::SimpleAtoi(keys[i], &index) || index < 0 || index > size) {
    return ConfigError(fmt::format(
        "{}: '{}' has {} items: expected an index from 0 to {} (which adds one), found '{}'", name_,
        path, size, size, Shown(keys[i])));
  }
  const std::string here = Below(path, std::to_string(index));
  const bool last = i + 1 == keys.size();
  if (field.message_type() == nullptr) {
    if (!last) return ConfigError(fmt::format("{}: '{}' is a single value", name_, here));
    OSLER_RETURN_IF_ERROR(FillScalar(value, here, field, message));  // adds it at the end
    if (index < size) {
      reflection->SwapElements(&message, &field, index, size);
      reflection->RemoveLast(&message, &field);
    }
    places_.Set(here, name_);
    return absl::OkStatus();
  }
  Message& item = index < size ? *reflection->MutableRepeatedMessage(&message, &field, index)
                               : *reflection->AddMessage(&message, &field);
  if (!last) return AssignAt(keys, i + 1, here, value, item);
  item.Clear();
  places_.Set(here, name_);
  return FillMessage(value, here, item);
}

// yaml-cpp throws; nothing of ours does.
template <typename Body>
absl::Status CatchYaml(const std::string& name, Body body) {
  try {
    return body();
  } catch (const std::exception& e) {
    return ConfigError(fmt::format("{}: not valid YAML: {}", name, e.what()));
  }
}

}  // namespace

void SettingPlaces::Set(const std::string& path, const std::string& place) {
  const std::string children = path + ".";
  auto it = places_.lower_bound(children);
  while (it != places_.end() && it->first.compare(0, children.size(), children) == 0) {
    it = places_.erase(it);
  }
  places_[path] = place;
}

std::string SettingPlaces::Of(std::string path) const {
  while (true) {
    if (const auto it = places_.find(path); it != places_.end()) return it->second;
    const size_t dot = path.rfind('.');
    if (dot == std::string::npos) return file_;
    path.resize(dot);
  }
}

absl::Status FillFromYaml(const std::string& text, Message& message, SettingPlaces& places) {
  return CatchYaml(places.file(), [&]() -> absl::Status {
    Filler filler(places.file(), /*has_lines=*/true, *message.GetDescriptor(), places);
    OSLER_ASSIGN_OR_RETURN(const YAML::Node root, filler.Load(text));
    if (!root.IsNull()) return filler.FillMessage(root, "", message);
    return ConfigError(fmt::format(
        "{}: the file holds no settings; docs/config.md shows a complete one", places.file()));
  });
}

absl::Status ApplyOverride(const std::string& assignment, Message& message, SettingPlaces& places) {
  const std::string name = "--set " + Shown(assignment);
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    return ConfigError(name + ": expected key=value, for example --set optimizer.lr=2e-4");
  }
  const std::vector<std::string> keys = absl::StrSplit(assignment.substr(0, equals), '.');
  return CatchYaml(name, [&]() -> absl::Status {
    Filler filler(name, /*has_lines=*/false, *message.GetDescriptor(), places);
    OSLER_ASSIGN_OR_RETURN(const YAML::Node value, filler.Load(assignment.substr(equals + 1)));
    return filler.AssignAt(keys, 0, "", value, message);
  });
}

}  // namespace osler
