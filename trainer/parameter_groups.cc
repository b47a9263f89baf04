#include "trainer/parameter_groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/errors.h"
#include "base/glob.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr size_t kSuggestions = 3;

std::string NearestNames(const std::string& pattern, const ParameterStore& store) {
  std::vector<std::pair<size_t, std::string>> near;
  for (const ParameterSlot& slot : store.slots()) {
    near.emplace_back(GlobDistance(pattern, slot.name), slot.name);
  }
  std::stable_sort(near.begin(), near.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  near.resize(std::min(near.size(), kSuggestions));
  std::vector<std::string> names;
  for (auto& [distance, name] : near) names.push_back(std::move(name));
  return fmt::format("{}", fmt::join(names, ", "));
}

absl::Status RequireMatch(const std::string& pattern, const std::string& key,
                          const ParameterStore& store) {
  const auto& slots = store.slots();
  const bool any = std::any_of(slots.begin(), slots.end(), [&](const ParameterSlot& slot) {
    return GlobMatches(pattern, slot.name);
  });
  if (any) return absl::OkStatus();
  return ConfigError(
      fmt::format("{}: '{}' matches no parameter of this model; the nearest names are {} ('*' "
                  "stands for any characters)",
                  key, pattern, NearestNames(pattern, store)));
}

template <typename Patterns>
bool MatchesAny(const Patterns& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return GlobMatches(pattern, name); });
}

absl::Status MarkTrainable(const config::TrainLoop& train, ParameterStore& store) {
  for (int i = 0; i < train.freeze_size(); ++i) {
    OSLER_RETURN_IF_ERROR(RequireMatch(train.freeze(i), fmt::format("train.freeze.{}", i), store));
  }
  for (int i = 0; i < train.train_only_size(); ++i) {
    OSLER_RETURN_IF_ERROR(
        RequireMatch(train.train_only(i), fmt::format("train.train_only.{}", i), store));
  }
  bool any = false;
  for (ParameterSlot& slot : store.slots()) {
    slot.trainable = train.train_only().empty() ? !MatchesAny(train.freeze(), slot.name)
                                                : MatchesAny(train.train_only(), slot.name);
    any = any || slot.trainable;
  }
  if (any) return absl::OkStatus();
  return ConfigError(
      "train.freeze: every parameter is frozen, nothing is left to train; remove a "
      "pattern");
}

}  // namespace

absl::StatusOr<std::vector<ParameterGroup>> GroupParameters(const config::Train& config,
                                                            ParameterStore& store) {
  OSLER_RETURN_IF_ERROR(MarkTrainable(config.train(), store));
  const config::Optimizer& optimizer = config.optimizer();
  std::vector<ParameterGroup> groups;
  for (int i = 0; i < optimizer.groups_size(); ++i) {
    const config::ParameterGroup& group = optimizer.groups(i);
    OSLER_RETURN_IF_ERROR(
        RequireMatch(group.match(), fmt::format("optimizer.groups.{}.match", i), store));
    groups.push_back({group.lr_scale(),
                      group.has_weight_decay() ? group.weight_decay() : optimizer.weight_decay(),
                      {}});
  }
  groups.push_back({1, optimizer.weight_decay(), {}});
  for (size_t i = 0; i < store.slots().size(); ++i) {
    const ParameterSlot& slot = store.slots()[i];
    if (!slot.trainable) continue;
    const auto first = std::find_if(
        optimizer.groups().begin(), optimizer.groups().end(),
        [&](const config::ParameterGroup& g) { return GlobMatches(g.match(), slot.name); });
    groups[static_cast<size_t>(first - optimizer.groups().begin())].slots.push_back(
        static_cast<int64_t>(i));
  }
  for (size_t i = 0; i + 1 < groups.size(); ++i) {
    if (!groups[i].slots.empty()) continue;
    LogWarning("optimizer.groups.{}: all that '{}' matches is frozen or in an earlier group", i,
               optimizer.groups(static_cast<int>(i)).match());
  }
  return groups;
}

}  // namespace osler
