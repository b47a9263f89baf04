#include "model/layout.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

// Why the axis cannot have that size; empty: it can.
std::string TensorProblem(const ModelSpec& spec, int64_t size) {
  const auto undivided = [&](int64_t count, const char* what) {
    return count % size == 0 ? std::string()
                             : absl::StrCat("mesh.tensor ", size, " does not divide ", count, " ",
                                            what, " of ", spec.family);
  };
  if (std::string why = undivided(spec.heads, "attention heads"); !why.empty()) return why;
  if (size % spec.key_value_heads != 0 && spec.key_value_heads % size != 0) {
    return absl::StrCat("mesh.tensor ", size, " neither divides ", spec.key_value_heads,
                        " key/value heads of ", spec.family, " nor is a multiple of them");
  }
  if (std::string why = undivided(spec.intermediate_size, "intermediate columns"); !why.empty())
    return why;
  return undivided(spec.vocab_size, "vocabulary rows");
}

absl::Status CheckTensor(const ModelSpec& spec, int64_t size) {
  const std::string problem = TensorProblem(spec, size);
  if (problem.empty()) return absl::OkStatus();
  int64_t below = size - 1, above = size + 1;
  while (!TensorProblem(spec, below).empty()) --below;  // one rank always fits
  while (above <= spec.heads && !TensorProblem(spec, above).empty()) ++above;
  std::string nearest = absl::StrCat("; nearest valid: ", below);
  if (above <= spec.heads) absl::StrAppend(&nearest, ", ", above);
  return ConfigError(problem + nearest);
}

absl::Status CheckPipeline(const ModelSpec& spec, int64_t stages, int64_t chunks_per_stage) {
  if (stages == 1 || stages * chunks_per_stage <= spec.layers) return absl::OkStatus();
  const std::string chunks =
      chunks_per_stage == 1 ? "" : absl::StrCat(" with ", chunks_per_stage, " chunks a stage");
  const int64_t most = spec.layers / chunks_per_stage;
  return ConfigError(
      absl::StrCat("mesh.pipeline ", stages, chunks, " needs ", stages * chunks_per_stage,
                   " layers, but ", spec.family, " has ", spec.layers, "; nearest valid: ",
                   most > 1 ? absl::StrCat(most, chunks)
                            : absl::StrCat(spec.layers, " with 1 chunk a stage, or no pipeline")));
}

}  // namespace

absl::Status CheckLayout(const ModelSpec& spec, const MeshShape& mesh, int64_t chunks_per_stage) {
  OSLER_RETURN_IF_ERROR(CheckTensor(spec, mesh.size(Axis::kTensor)));
  return CheckPipeline(spec, mesh.size(Axis::kPipeline), chunks_per_stage);
}

}  // namespace osler
