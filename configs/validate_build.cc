#include <cstdint>
#include <map>
#include <string>

#include <fmt/format.h>

#include "configs/validate.h"
#include "configs/yaml_scalar.h"

namespace osler {
namespace {

constexpr int64_t kLargestShardMb = int64_t{1} << 20;  // 1 TiB: shards are mapped whole
constexpr size_t kLongestShown = 60;

}  // namespace

absl::Status ValidateBuild(const config::Build& config, const SettingPlaces& places) {
  Rules rules(places);
  rules.Require(config.sources_size() > 0, "sources",
                "lists nothing to read; add {name: …, format: chat_jsonl, path: …}");
  std::map<std::string, int> names;
  for (int i = 0; i < config.sources_size(); ++i) {
    const std::string key = fmt::format("sources.{}", i);
    CheckSource(config.sources(i), key, rules);
    const auto [other, is_new] = names.emplace(config.sources(i).name(), i);
    rules.Require(
        is_new, key + ".name",
        fmt::format("'{}' is the name of sources.{} too; names tell sources apart, change one",
                    Excerpt(config.sources(i).name(), kLongestShown), other->second));
  }
  const double validation = config.split().validation();
  rules.Require(
      validation >= 0 && validation < 1, "split.validation",
      fmt::format("{} is no share to hold out; use a number from 0 to below 1", validation));
  rules.Require(!config.output().path().empty(), "output.path",
                "is missing; give the directory that gets train/ and validation/");
  const int64_t shard_mb = config.output().shard_mb();
  rules.Require(
      shard_mb >= 1 && shard_mb <= kLargestShardMb, "output.shard_mb",
      fmt::format("{} is no size of a shard; use 1 to {} (MiB)", shard_mb, kLargestShardMb));
  return rules.status();
}

}  // namespace osler
