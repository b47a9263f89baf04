// A model of the same family as a given one, small enough to train in fp64 in moments.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "model/registry.h"

namespace osler {

// The config.json of a model with the structure of the given one (what its layers compute, query
// heads to a key/value head, tied or own head, kinds of layers, RoPE scaling) and other sizes:
// those that the standard layouts of `osler verify` divide. `name` is the file's, for errors.
absl::StatusOr<std::string> TinyConfig(std::string_view config_json, const std::string& name);

// By parameter name: every one, whole, in fp64, drawn at random, norms and biases too: what
// initialisation leaves at zero or one hides errors.
std::map<std::string, at::Tensor> DrawParameters(const ModelSpec& spec, uint64_t seed);

}  // namespace osler
