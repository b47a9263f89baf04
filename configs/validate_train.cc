#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "configs/validate.h"

namespace osler {
namespace {

constexpr double kMostSeconds = 1e6;
constexpr int64_t kMostPacks =
    int64_t{1} << 52;  // packs are numbered in metrics, where JSON readers use doubles

bool NotNegative(double value) { return std::isfinite(value) && value >= 0; }

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
}

void CheckPath(const std::string& path, const std::string& key, Rules& rules) {
  rules.Require(!path.empty(), key + ".path",
                "is missing; give a directory that `osler data build` wrote");
}

void CheckSources(const config::Data& data, Rules& rules) {
  rules.Require(data.train_size() > 0, "data.train",
                "lists no shards; add {path: SHARDS/train}, as `osler data build` wrote it");
  for (int i = 0; i < data.train_size(); ++i) {
    const std::string key = fmt::format("data.train.{}", i);
    const double weight = data.train(i).weight();
    CheckPath(data.train(i).path(), key, rules);
    rules.Require(
        std::isfinite(weight) && weight > 0, key + ".weight",
        fmt::format("{} is not a share; use a number above 0 or delete the source", weight));
  }
  rules.Require(
      data.sequence_length() >= 2, "data.sequence_length",
      fmt::format("{} ids hold no token and its successor; use 2 or more", data.sequence_length()));
}

// Losses are told apart by name.
void CheckValidation(const config::Train& config, Rules& rules) {
  const auto& sources = config.data().validation();
  std::map<std::string, int> names;
  for (int i = 0; i < sources.size(); ++i) {
    const std::string key = fmt::format("data.validation.{}", i);
    CheckPath(sources[i].path(), key, rules);
    const std::string name = ValidationName(sources[i]);
    rules.Require(!name.empty() && std::all_of(name.begin(), name.end(), IsNameCharacter),
                  key + ".name",
                  fmt::format("'{}' is no name; use letters, digits, '-', '_' and '.'", name));
    const auto [other, fresh] = names.emplace(name, i);
    rules.Require(fresh, key + ".name",
                  fmt::format("'{}' is the name of data.validation.{} too; give each source a name "
                              "of its own",
                              name, other->second));
  }
  const auto needs_data = [&](bool wanted, const std::string& key) {
    rules.Require(!wanted || !sources.empty(), key,
                  "needs data.validation; add {path: SHARDS/validation} there");
  };
  const int64_t every = config.validation().every_steps();
  rules.Require(
      every >= 0, "validation.every_steps",
      fmt::format("{} is negative; use 0 to measure whenever a checkpoint is due", every));
  const config::EarlyStop& stop = config.train().early_stop();
  rules.Require(stop.patience() >= 0, "train.early_stop.patience",
                fmt::format("{} is negative; use 0 never to stop early", stop.patience()));
  rules.Require(NotNegative(stop.min_delta()), "train.early_stop.min_delta",
                fmt::format("{} is no difference; use 0 or more", stop.min_delta()));
  needs_data(every > 0, "validation.every_steps");
  needs_data(stop.patience() > 0, "train.early_stop.patience");
  needs_data(config.checkpoint().keep_best(), "checkpoint.keep_best");
}

void CheckPatterns(const config::TrainLoop& train, Rules& rules) {
  const auto check = [&](const auto& patterns, const std::string& list) {
    for (int i = 0; i < patterns.size(); ++i) {
      rules.Require(
          !patterns[i].empty(), fmt::format("{}.{}", list, i),
          "is empty; give a pattern of parameter names, for example \"model.layers.0.*\"");
    }
  };
  check(train.freeze(), "train.freeze");
  check(train.train_only(), "train.train_only");
  rules.Require(train.freeze().empty() || train.train_only().empty(), "train.train_only",
                "excludes train.freeze; keep the shorter of the two lists");
}

bool IsDate(const std::string& text) {
  static constexpr char kForm[] = "dddd-dd-dd";
  if (text.size() != sizeof kForm - 1) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (kForm[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != '-') return false;
  }
  const int month = std::stoi(text.substr(5, 2)), day = std::stoi(text.substr(8, 2));
  return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

void CheckChats(const config::Data& data, Rules& rules) {
  const std::string& name = data.template_();
  rules.Require(name.empty() || name == "gemma" || name == "llama3" || name == "chatml",
                "data.template",
                fmt::format("\"{}\" is no built-in chat template; use gemma, llama3 or chatml, or "
                            "delete it to use the model directory's own",
                            name));
  rules.Require(data.template_date().empty() || IsDate(data.template_date()), "data.template_date",
                fmt::format("\"{}\" is no date; write it YYYY-MM-DD", data.template_date()));
}

// An option of an axis says nothing where the axis is 1; ignored, it would mislead.
void CheckMesh(const config::Mesh& mesh, Rules& rules) {
  const auto check = [&](const char* axis, int32_t size) {
    rules.Require(size >= 1, std::string("mesh.") + axis,
                  fmt::format("{} is no number of ranks; use 1 or more", size));
  };
  const auto needs = [&](bool wanted, const char* option, const char* axis, int32_t size) {
    rules.Require(
        !wanted || size > 1, std::string("mesh.") + option,
        fmt::format("has no effect while mesh.{} is 1; raise that, or delete this", axis));
  };
  if (mesh.has_data()) check("data", mesh.data());
  check("pipeline", mesh.pipeline());
  check("shard", mesh.shard());
  check("context", mesh.context());
  check("tensor", mesh.tensor());
  rules.Require(mesh.zero() >= 1 && mesh.zero() <= 3, "mesh.zero",
                fmt::format("{} is no ZeRO level; use 1 to cut the optimizer's state along "
                            "mesh.shard, 2 for gradients too, 3 for parameters too",
                            mesh.zero()));
  rules.Require(mesh.interleave() >= 1, "mesh.interleave",
                fmt::format("{} is no number of chunks; use 1 or more", mesh.interleave()));
  needs(mesh.zero() > 1, "zero", "shard", mesh.shard());
  needs(mesh.interleave() > 1, "interleave", "pipeline", mesh.pipeline());
  needs(mesh.context_method() != config::AUTO, "context_method", "context", mesh.context());
}

void CheckDevice(const config::TrainLoop& train, Rules& rules) {
  if (train.has_gradient_reduction()) {
    const bool known = train.gradient_reduction() != config::FP64;
    rules.Require(known, "train.gradient_reduction",
                  "fp64 is what train.precision fp64 reduces in anyway; delete this");
    rules.Require(
        !known || train.precision() != config::FP64, "train.gradient_reduction",
        "would round the fp64 gradients that train.precision asks for; delete one of them");
  }
  rules.Require(
      train.mlp_chunk_tokens() >= 0, "train.mlp_chunk_tokens",
      fmt::format("{} is negative; use 0 for all tokens at once", train.mlp_chunk_tokens()));
  const config::Offload& offload = train.offload();
  const auto moves = [&](bool wanted, const char* key) {
    rules.Require(!wanted || train.device() == config::TrainLoop::CUDA, key,
                  "has no effect while train.device is cpu, whose memory is the host's, or auto, "
                  "which may be that; delete this, or set train.device to cuda");
  };
  moves(offload.optimizer(), "train.offload.optimizer");
  moves(offload.activations(), "train.offload.activations");
  rules.Require(!offload.activations() || train.recompute() != config::NONE,
                "train.offload.activations",
                "moves what blocks keep to recompute from; set train.recompute: full or selective");
}

void CheckLoop(const config::TrainLoop& train, Rules& rules) {
  rules.Require(train.has_steps(), "train.steps", "is missing; say how many steps to train");
  rules.Require(train.steps() >= 1, "train.steps",
                fmt::format("{} is no training; use 1 or more", train.steps()));
  rules.Require(train.global_batch() >= 1, "train.global_batch",
                fmt::format("{} is an impossible batch; use 1 or more packed sequences",
                            train.global_batch()));
  rules.Require(train.micro_batch() >= 1, "train.micro_batch",
                fmt::format("{} is an impossible batch; use 1 or more packed sequences",
                            train.micro_batch()));
  rules.Require(
      train.micro_batch() <= train.global_batch(), "train.micro_batch",
      fmt::format("{} is an impossible batch: more than train.global_batch, {}; lower it or raise "
                  "train.global_batch",
                  train.micro_batch(), train.global_batch()));
  rules.Require(
      train.steps() <= kMostPacks / std::max<int64_t>(1, train.global_batch()),
      "train.global_batch",
      fmt::format("{} sequences in each of {} steps is an impossible batch; lower one of them",
                  train.global_batch(), train.steps()));
  rules.Require(!train.output().empty(), "train.output",
                "is missing; give the directory of this run");
  CheckPatterns(train, rules);
}

void CheckGroups(const config::Optimizer& optimizer, Rules& rules) {
  for (int i = 0; i < optimizer.groups_size(); ++i) {
    const config::ParameterGroup& group = optimizer.groups(i);
    const std::string key = fmt::format("optimizer.groups.{}", i);
    rules.Require(!group.match().empty(), key + ".match",
                  "is missing; give a pattern of parameter names, for example \"*norm.weight\"");
    rules.Require(std::isfinite(group.lr_scale()) && group.lr_scale() > 0, key + ".lr_scale",
                  fmt::format("{} is no scale; use a number above 0, or train.freeze for what is "
                              "not to be trained",
                              group.lr_scale()));
    rules.Require(NotNegative(group.weight_decay()), key + ".weight_decay",
                  fmt::format("{} makes weights grow; use 0 or more", group.weight_decay()));
  }
}

void CheckOptimizer(const config::Optimizer& optimizer, Rules& rules) {
  rules.Require(
      NotNegative(optimizer.lr()), "optimizer.lr",
      fmt::format("{} is no learning rate; use 0 or more, for example 1.0e-4", optimizer.lr()));
  rules.Require(optimizer.betas_size() == 2, "optimizer.betas",
                fmt::format("has {} numbers; AdamW takes two, for example [0.9, 0.999]",
                            optimizer.betas_size()));
  for (int i = 0; i < optimizer.betas_size(); ++i) {
    const double beta = optimizer.betas(i);
    rules.Require(beta >= 0 && beta < 1, fmt::format("optimizer.betas.{}", i),
                  fmt::format("{} does not average; use a number from 0 to below 1", beta));
  }
  rules.Require(std::isfinite(optimizer.eps()) && optimizer.eps() > 0, "optimizer.eps",
                fmt::format("{} can divide by zero; use a number above 0, for example 1.0e-8",
                            optimizer.eps()));
  rules.Require(NotNegative(optimizer.weight_decay()), "optimizer.weight_decay",
                fmt::format("{} makes weights grow; use 0 or more", optimizer.weight_decay()));
  rules.Require(NotNegative(optimizer.clip_norm()), "optimizer.clip_norm",
                fmt::format("{} is no norm; use a number above 0, or 0 for no clipping",
                            optimizer.clip_norm()));
  CheckGroups(optimizer, rules);
}

void CheckCommunication(const config::Communication& communication, Rules& rules) {
  const auto check = [&](double seconds, const char* name) {
    rules.Require(std::isfinite(seconds) && seconds > 0 && seconds <= kMostSeconds,
                  fmt::format("communication.{}", name),
                  fmt::format("{} is no time to wait; use a number of seconds above 0", seconds));
  };
  check(communication.connect_seconds(), "connect_seconds");
  check(communication.heartbeat_seconds(), "heartbeat_seconds");
  check(communication.silence_seconds(), "silence_seconds");
  check(communication.timeout_seconds(), "timeout_seconds");
  rules.Require(
      communication.silence_seconds() >= 2 * communication.heartbeat_seconds(),
      "communication.silence_seconds",
      fmt::format("{} is too short for a sign of life every {} s; use at least twice that",
                  communication.silence_seconds(), communication.heartbeat_seconds()));
}

}  // namespace

std::string ValidationName(const config::ValidationSource& source) {
  if (source.has_name()) return source.name();
  std::vector<std::string> parts = absl::StrSplit(source.path(), '/', absl::SkipEmpty());
  const bool half = !parts.empty() && (parts.back() == "validation" || parts.back() == "train");
  if (half && parts.size() > 1) parts.pop_back();
  std::string name = parts.empty() ? "" : parts.back();
  std::replace_if(name.begin(), name.end(), std::not_fn(IsNameCharacter), '_');
  return name;
}

void Rules::Require(bool holds, const std::string& key, const std::string& message) {
  if (holds || !status_.ok()) return;
  status_ = ConfigError(fmt::format("{}: {}: {}", places_.Of(key), key, message));
}

absl::Status ValidateTrain(const config::Train& config, const SettingPlaces& places) {
  Rules rules(places);
  rules.Require(!config.model().path().empty(), "model.path",
                "is missing; give a Hugging Face model directory");
  CheckSources(config.data(), rules);
  CheckChats(config.data(), rules);
  CheckMesh(config.mesh(), rules);
  CheckLoop(config.train(), rules);
  CheckDevice(config.train(), rules);
  CheckOptimizer(config.optimizer(), rules);
  CheckValidation(config, rules);
  CheckCommunication(config.communication(), rules);
  const config::Schedule& schedule = config.schedule();
  rules.Require(schedule.warmup_steps() >= 0, "schedule.warmup_steps",
                fmt::format("{} is negative; use 0 for no warm-up", schedule.warmup_steps()));
  rules.Require(schedule.min_lr_ratio() >= 0 && schedule.min_lr_ratio() <= 1,
                "schedule.min_lr_ratio",
                fmt::format("{} is no share of optimizer.lr; use a number from 0 to 1",
                            schedule.min_lr_ratio()));
  const config::Checkpoint& checkpoint = config.checkpoint();
  rules.Require(
      checkpoint.every_steps() >= 0, "checkpoint.every_steps",
      fmt::format("{} is negative; use 0 to save the last step only", checkpoint.every_steps()));
  rules.Require(checkpoint.keep() >= 0, "checkpoint.keep",
                fmt::format("{} is negative; use 0 to keep every checkpoint", checkpoint.keep()));
  rules.Require(
      checkpoint.keep_every_steps() >= 0, "checkpoint.keep_every_steps",
      fmt::format("{} is negative; use 0 to keep none for good", checkpoint.keep_every_steps()));
  rules.Require(checkpoint.keep_every_steps() == 0 || checkpoint.keep() > 0,
                "checkpoint.keep_every_steps",
                "has no effect while checkpoint.keep is 0, which keeps every checkpoint");
  rules.Require(checkpoint.most_restarts() >= 0, "checkpoint.most_restarts",
                fmt::format("{} is negative; use 0 for any number", checkpoint.most_restarts()));
  return rules.status();
}

}  // namespace osler
