#include "data/manifest.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/status_macros.h"
#include "data/shard_format.h"
#include "nlohmann/json.hpp"

namespace osler {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "osler-shards", kDigestKey[] = "manifest_digest";
constexpr size_t kDigestDigits = 64;

std::string NoDigest() { return std::string(kDigestDigits, '0'); }

bool IsDigest(const std::string& text) {
  return text.size() == kDigestDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// The field, or the type's zero when it is missing or of another type (callers check the values
// that matter).
std::string Text(const Json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

int64_t Count(const Json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  return it != object.end() && it->is_number_unsigned() ? it->get<int64_t>() : -1;
}

Json FileJson(const ManifestFile& file) {
  return {{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}};
}

// Invalid UTF-8 cannot come from a configuration file or a rule name, and must not end the program
// if it does.
std::string Dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::Status CheckDigest(std::string text, const std::string& digest, const std::string& path) {
  const std::string field = absl::StrCat("\"", kDigestKey, "\": \"");
  const size_t at = text.rfind(field);
  if (!IsDigest(digest) || at == std::string::npos ||
      text.compare(at + field.size(), kDigestDigits, digest) != 0) {
    return DamagedFile(path, "does not carry its own digest");
  }
  text.replace(at + field.size(), kDigestDigits, NoDigest());
  if (Sha256Hex(text) == digest) return absl::OkStatus();
  return DamagedFile(path, "was changed after the build: its own digest does not fit");
}

// Puts `file` where its name belongs; false if the name is none that this version writes there.
bool Place(ManifestFile file, Manifest* manifest) {
  if (file.name == kIndexName) return manifest->index = file, true;
  if (file.name == kCertificateName) return manifest->certificate = file, true;
  if (file.name == kReportName) return manifest->report = file, true;
  if (file.name != ShardFileName(static_cast<int64_t>(manifest->shards.size()))) return false;
  manifest->shards.push_back(std::move(file));
  return true;
}

absl::Status ReadFiles(const Json& files, const std::string& path, Manifest* manifest) {
  int64_t records = 0;
  for (const Json& item : files) {
    const bool shard = item.is_object() && item.contains("records");
    ManifestFile file{Text(item, "name"), Count(item, "bytes"), Text(item, "sha256"),
                      shard ? Count(item, "records") : 0};
    const bool countable = file.bytes >= 0 && file.records >= 0 && file.records <= file.bytes;
    records += countable ? file.records : 0;
    if (!countable || !IsDigest(file.sha256) || !Place(std::move(file), manifest)) {
      return DamagedFile(path, "lists a file that no shard directory of this version has");
    }
  }
  if (manifest->index.name.empty() || manifest->certificate.name.empty() ||
      manifest->report.name.empty()) {
    return DamagedFile(path, "does not list index, certificate and report");
  }
  if (records != manifest->records) return DamagedFile(path, "its record counts do not add up");
  return absl::OkStatus();
}

}  // namespace

std::string WriteManifest(const Manifest& manifest) {
  Json files = Json::array();
  files.push_back(FileJson(manifest.certificate));
  files.push_back(FileJson(manifest.index));
  files.push_back(FileJson(manifest.report));
  for (const ManifestFile& shard : manifest.shards) {
    Json file = FileJson(shard);
    file["records"] = shard.records;
    files.push_back(std::move(file));
  }
  Json json = {{"format", kFormat},
               {"version", kShardVersion},
               {"build_id", manifest.build_id},
               {"data_digest", manifest.data_digest},
               {"records", manifest.records}};
  json["files"] = std::move(files);
  json[kDigestKey] = NoDigest();
  json[kDigestKey] = Sha256Hex(Dump(json));
  return Dump(json);
}

absl::StatusOr<Manifest> ParseManifest(const std::string& text, const std::string& path) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || Text(json, "format") != kFormat) {
    return DamagedFile(path, "is no manifest of a shard directory, or is cut short");
  }
  OSLER_RETURN_IF_ERROR(CheckDigest(text, Text(json, kDigestKey), path));
  if (Count(json, "version") != kShardVersion) {
    return DamagedFile(path, absl::StrCat("is not of format version ", kShardVersion));
  }
  Manifest manifest;
  manifest.build_id = Text(json, "build_id");
  manifest.data_digest = Text(json, "data_digest");
  manifest.records = Count(json, "records");
  const auto files = json.find("files");
  if (!IsDigest(manifest.build_id) || !IsDigest(manifest.data_digest) || files == json.end() ||
      !files->is_array()) {
    return DamagedFile(path, "lacks build_id, data_digest or files");
  }
  OSLER_RETURN_IF_ERROR(ReadFiles(*files, path, &manifest));
  return manifest;
}

std::string WriteCertificate(const Certificate& certificate) {
  Json json = {{"format", "osler-certificate"},
               {"profile", certificate.profile},
               {"policy_digest", certificate.policy_digest},
               {"tool_version", certificate.tool_version},
               {"build_id", certificate.build_id}};
  json["trusted_sources"] = certificate.trusted_sources;
  json["identifiers"] = Json::object();
  for (const auto& [rule, count] : certificate.identifiers) json["identifiers"][rule] = count;
  return Dump(json);
}

absl::StatusOr<Certificate> ParseCertificate(const std::string& text, const std::string& path) {
  const Json json = Json::parse(text, nullptr, false);
  Certificate certificate;
  certificate.profile = Text(json, "profile");
  certificate.policy_digest = Text(json, "policy_digest");
  certificate.tool_version = Text(json, "tool_version");
  certificate.build_id = Text(json, "build_id");
  if (certificate.profile.empty() || !IsDigest(certificate.build_id)) {
    return DamagedFile(path, "is no de-identification certificate: it states no profile or build");
  }
  const auto sources = json.find("trusted_sources");
  const auto identifiers = json.find("identifiers");
  if (sources == json.end() || !sources->is_array() || identifiers == json.end() ||
      !identifiers->is_object()) {
    return DamagedFile(path, "lacks trusted_sources or identifiers");
  }
  for (const Json& source : *sources) {
    if (source.is_string()) certificate.trusted_sources.push_back(source.get<std::string>());
  }
  for (const auto& [rule, count] : identifiers->items()) {
    if (count.is_number_integer()) certificate.identifiers[rule] = count.get<int64_t>();
  }
  return certificate;
}

std::string BuildId(const Manifest& manifest, const Certificate& certificate,
                    const std::string& report) {
  Certificate unnamed = certificate;
  unnamed.build_id.clear();
  Sha256 digest;
  digest.Update(manifest.data_digest);
  for (const ManifestFile& shard : manifest.shards) digest.Update(shard.sha256);
  digest.Update(Sha256Hex(WriteCertificate(unnamed)));
  digest.Update(Sha256Hex(report));
  return digest.Hex();
}

absl::Status CheckFile(const ManifestFile& listed, std::string_view text, const std::string& path) {
  if (static_cast<int64_t>(text.size()) != listed.bytes) {
    return DamagedFile(path,
                       absl::StrCat("has ", text.size(), " bytes, but ", kManifestName, " says ",
                                    listed.bytes, ": it is cut short, edited or of another build"));
  }
  if (Sha256Hex(text) == listed.sha256) return absl::OkStatus();
  return DamagedFile(
      path, absl::StrCat("is not the file that ", kManifestName,
                         " lists (SHA-256 differs): it is damaged, edited or of another build"));
}

}  // namespace osler
