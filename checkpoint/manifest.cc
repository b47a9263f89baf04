#include "checkpoint/manifest.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "base/digest.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "checkpoint/strict_json.h"

namespace osler {
namespace {

using Json = nlohmann::json;

std::string Ending(std::string_view body) {
  return fmt::format(",\n\"sha256\":\"{}\"}}\n", Sha256Hex(body));
}
const size_t kEndingSize = Ending("").size();

absl::Status Bad(const std::string& why) { return absl::DataLossError(why); }

absl::StatusOr<int64_t> Count(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_unsigned() || it->get<uint64_t>() > INT64_MAX) {
    return Bad(fmt::format("needs a whole number {}", key));
  }
  return it->get<int64_t>();
}

absl::StatusOr<std::string> Text(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) return Bad(fmt::format("needs a text {}", key));
  return it->get<std::string>();
}

absl::StatusOr<ManifestFile> ParseFile(const Json& object) {
  if (!object.is_object()) return Bad("lists a file that is no object");
  ManifestFile file;
  OSLER_ASSIGN_OR_RETURN(file.name, Text(object, "name"));
  if (!IsPlainFileName(file.name))
    return Bad("lists " + Printable(file.name) + ", which is no plain file name");
  OSLER_ASSIGN_OR_RETURN(file.size, Count(object, "size"));
  if (object.contains("tensors")) {
    OSLER_ASSIGN_OR_RETURN(file.tensors, Count(object, "tensors"));
  }
  OSLER_ASSIGN_OR_RETURN(const std::string crc, Text(object, "crc32c"));
  const auto [end, error] = std::from_chars(crc.data(), crc.data() + crc.size(), file.crc32c, 16);
  if (crc.size() != 8 || error != std::errc() || end != crc.data() + 8) {
    return Bad("lists " + Printable(file.name) + " with a checksum that is not 8 hex digits");
  }
  return file;
}

}  // namespace

bool IsPlainFileName(std::string_view name) {
  if (name.empty() || name.front() == '.' || name == kManifestName) return false;
  return name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

std::string FormatManifest(const Manifest& manifest) {
  std::string body =
      fmt::format("{{\"format\":{},\n\"step\":{},\n\"files\":[", kManifestFormat, manifest.step);
  const char* separator = "\n";
  for (const ManifestFile& file : manifest.files) {
    body += fmt::format("{} {{\"name\":{},\"size\":{},\"crc32c\":\"{:08x}\"", separator,
                        Json(file.name).dump(), file.size, file.crc32c);
    if (file.tensors >= 0) body += fmt::format(",\"tensors\":{}", file.tensors);
    body += "}";
    separator = ",\n";
  }
  body += "]";
  return body + Ending(body);
}

absl::StatusOr<Manifest> ParseManifest(std::string_view text) {
  if (text.size() < kEndingSize) return Bad("is too short");
  const std::string_view body = text.substr(0, text.size() - kEndingSize);
  if (text.substr(body.size()) != Ending(body)) return Bad("does not match its own digest");
  OSLER_ASSIGN_OR_RETURN(const Json root, ParseStrictJson(text));
  if (!root.is_object()) return Bad("is no JSON object");
  OSLER_ASSIGN_OR_RETURN(const int64_t format, Count(root, "format"));
  if (format < 1) return Bad("has no known format");
  if (format > kManifestFormat) {
    return absl::UnimplementedError(
        fmt::format("was written by a newer Osler (format {}, this one reads {}): use that "
                    "version",
                    format, kManifestFormat));
  }
  Manifest manifest;
  OSLER_ASSIGN_OR_RETURN(manifest.step, Count(root, "step"));
  const auto files = root.find("files");
  if (files == root.end() || !files->is_array()) return Bad("needs a list of files");
  std::set<std::string> names;
  for (const Json& object : *files) {
    OSLER_ASSIGN_OR_RETURN(ManifestFile file, ParseFile(object));
    if (!names.insert(file.name).second) return Bad("lists " + Printable(file.name) + " twice");
    manifest.files.push_back(std::move(file));
  }
  return manifest;
}

}  // namespace osler
