// Runs a model directory's blocks end to end, for tests that compare them with another program's.
//
//   model_parity describe CONFIG.json   → JSON on stdout: parameters with shapes and placements,
//     layer kinds
//   model_parity rope WORK              reads WORK/config.json and WORK/positions.json; writes
//     WORK/rope.bin: for every layer kind the cosines [T, D], then the sines
//   model_parity run WORK               reads WORK/config.json and WORK/run.json: {"dtype",
//     "tokens", "doc_starts", "targets", "tensors": {name in any spelling: {"file", "shape"}}};
//     writes WORK/logits.bin [T, V], WORK/grads.bin (all parameters, in the order of
//     result.json's "grads": [[name, elements], …]) and WORK/result.json with the "loss"
//
// Tensor files are little-endian fp64 whatever the dtype of the run.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/fs.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "kernels/linear_cross_entropy.h"
#include "model/registry.h"

namespace osler {
namespace {

using nlohmann::json;

json Placed(const PlacementRule& rule) {
  constexpr const char* kSplits[] = {"replicated", "column", "row", "vocabulary"};
  const std::optional<int> dim = SplitDim(rule.split);
  return {rule.pattern, kSplits[static_cast<int>(rule.split)], dim ? json(*dim) : json(),
          rule.unit};
}

json Described(const RopeOptions& rope) {
  json out = {{"theta", rope.theta}, {"factor", rope.factor}};
  if (rope.llama3) {
    out["llama3"] = {rope.llama3->low_factor, rope.llama3->high_factor,
                     rope.llama3->original_positions};
  }
  if (const auto& yarn = rope.yarn) {
    out["yarn"] = {yarn->fast_turns, yarn->slow_turns, yarn->original_positions, yarn->truncate,
                   yarn->magnitude};
  }
  return out;
}

absl::Status Describe(Fs& fs, const std::string& path) {
  OSLER_ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(path));
  OSLER_ASSIGN_OR_RETURN(const ModelSpec spec, ParseModelSpec(text, path));
  ParameterStore store;
  const Model model = spec.build(store);
  json out = {
      {"family", spec.family}, {"max_positions", model.max_positions}, {"head", model.head_slot}};
  for (const ParameterSlot& slot : store.slots())
    out["parameters"].push_back({slot.name, slot.shape});
  for (const Model::LayerKind& kind : model.layer_kinds) {
    out["kinds"].push_back(
        {{"window", kind.window ? json(*kind.window) : json()}, {"rope", Described(kind.rope)}});
  }
  for (const PlacementRule& rule : spec.placements) out["placements"].push_back(Placed(rule));
  for (const auto& [name, shape] :
       out["parameters"].get<std::vector<std::pair<std::string, json>>>()) {
    const PlacementRule* rule = FindRule(spec.placements, name);
    out["rules"].push_back({name, rule == nullptr ? json() : json(rule->pattern)});
  }
  std::cout << out.dump() << "\n";
  return absl::OkStatus();
}

void AppendTensor(const at::Tensor& tensor, std::string& bytes) {
  const at::Tensor wide = tensor.detach().to(at::kDouble).contiguous();
  bytes.append(static_cast<const char*>(wide.const_data_ptr()),
               static_cast<size_t>(wide.numel()) * sizeof(double));
}

absl::StatusOr<at::Tensor> ReadTensor(Fs& fs, const std::string& path,
                                      const std::vector<int64_t>& shape) {
  OSLER_ASSIGN_OR_RETURN(const std::string bytes, fs.ReadFile(path));
  at::Tensor tensor = at::empty(shape, at::kDouble);
  if (bytes.size() != static_cast<size_t>(tensor.numel()) * sizeof(double))
    return DataError("size of " + path);
  std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

// Every parameter that the model declares must come from the files, and nothing else may.
absl::Status LoadParameters(Fs& fs, const std::string& work, const json& tensors,
                            const ModelSpec& spec, at::ScalarType dtype, ParameterStore& store) {
  size_t loaded = 0;
  for (const auto& [name, entry] : tensors.items()) {
    const auto shape = entry.at("shape").get<std::vector<int64_t>>();
    const std::optional<std::string> canonical = spec.canonical_name(name);
    if (!canonical) continue;
    const int64_t index = store.Find(*canonical);
    if (index < 0 || store.slot(index).shape != shape || store.slot(index).local.defined()) {
      return DataError(absl::StrCat("unexpected tensor ", name));
    }
    OSLER_ASSIGN_OR_RETURN(
        const at::Tensor value,
        ReadTensor(fs, JoinPath(work, entry.at("file").get<std::string>()), shape));
    store.slot(index).local = value.to(dtype);
    ++loaded;
  }
  if (loaded != store.slots().size()) return DataError("a parameter is missing");
  return absl::OkStatus();
}

absl::Status Rope(Fs& fs, const std::string& work) {
  OSLER_ASSIGN_OR_RETURN(const ModelSpec spec, LoadModelSpec(fs, work));
  OSLER_ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(JoinPath(work, "positions.json")));
  const auto positions = json::parse(text).get<std::vector<int64_t>>();
  ParameterStore store;
  const Model model = spec.build(store);
  std::string bytes;
  for (const Model::LayerKind& kind : model.layer_kinds) {
    const RopeTables tables =
        MakeRopeTables(at::tensor(positions, at::kLong), model.head_dim, kind.rope);
    AppendTensor(tables.cos_TD, bytes);
    AppendTensor(tables.sin_TD, bytes);
  }
  return WriteFileDurably(fs, JoinPath(work, "rope.bin"), bytes);
}

at::Tensor Forward(const Model& model, const std::vector<at::Tensor>& leaves,
                   const SequenceInputs& inputs) {
  Activations activations;
  for (const auto& block : model.blocks) {
    SlotView view;
    for (const int64_t slot : block->slots()) view.push_back(leaves[static_cast<size_t>(slot)]);
    activations = block->Forward(activations, view, inputs);
  }
  return activations.x_TD;
}

absl::Status Run(Fs& fs, const std::string& work) {
  OSLER_ASSIGN_OR_RETURN(const ModelSpec spec, LoadModelSpec(fs, work));
  OSLER_ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(JoinPath(work, "run.json")));
  const json run = json::parse(text);
  const std::string precision = run.at("dtype");
  const at::ScalarType dtype = precision == "fp64"   ? at::kDouble
                               : precision == "fp32" ? at::kFloat
                                                     : at::kBFloat16;
  ParameterStore store;
  const Model model = spec.build(store);
  OSLER_RETURN_IF_ERROR(LoadParameters(fs, work, run.at("tensors"), spec, dtype, store));

  std::vector<at::Tensor> leaves, used;
  for (const ParameterSlot& slot : store.slots())
    leaves.push_back(slot.local.detach().requires_grad_(true));
  const SequenceInputs inputs = model.PrepareInputs(run.at("tokens"), run.at("doc_starts"));
  const at::Tensor hidden_TD = Forward(model, leaves, inputs);
  const at::Tensor head_VD = leaves[static_cast<size_t>(model.head_slot)].detach();
  std::string logits, grad_bytes;
  AppendTensor(at::matmul(hidden_TD.detach(), head_VD.t()), logits);

  const at::Tensor targets = at::tensor(run.at("targets").get<std::vector<int64_t>>(), at::kLong);
  const LinearCrossEntropyResult loss =
      LinearCrossEntropy(hidden_TD.detach(), head_VD, targets, store.GradientOf(model.head_slot),
                         {.chunk_tokens = 16});
  std::vector<int64_t> indices;
  for (const auto& block : model.blocks) {
    for (const int64_t slot : block->slots()) {
      indices.push_back(slot);
      used.push_back(leaves[static_cast<size_t>(slot)]);
    }
  }
  const auto grads = torch::autograd::grad({hidden_TD}, used, {loss.grad_hidden_TD});
  for (size_t i = 0; i < indices.size(); ++i) store.AddGradient(indices[i], grads[i]);
  json result = {{"loss", loss.loss_sum}};
  for (const ParameterSlot& slot : store.slots()) {
    result["grads"].push_back({slot.name, slot.gradient.numel()});
    AppendTensor(slot.gradient, grad_bytes);
  }
  OSLER_RETURN_IF_ERROR(WriteFileDurably(fs, JoinPath(work, "logits.bin"), logits));
  OSLER_RETURN_IF_ERROR(WriteFileDurably(fs, JoinPath(work, "grads.bin"), grad_bytes));
  return WriteFileDurably(fs, JoinPath(work, "result.json"), result.dump());
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) {
  const std::string mode = argc == 3 ? argv[1] : "";
  const auto fs = osler::MakePosixFs();
  const absl::Status status = osler::CatchTorch([&] {
    if (mode == "describe") return osler::Describe(*fs, argv[2]);
    if (mode == "rope") return osler::Rope(*fs, argv[2]);
    if (mode == "run") return osler::Run(*fs, argv[2]);
    return osler::ConfigError("usage: model_parity describe CONFIG.json | rope WORK | run WORK");
  });
  if (!status.ok()) std::cerr << status.message() << "\n";
  return static_cast<int>(osler::ExitCodeOf(status));
}
