#include "trainer/generate/generator.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "trainer/generate/batch.h"
#include "trainer/weights.h"

namespace osler {
namespace {

absl::Status CheckOptions(const GenerationOptions& options) {
  OSLER_RETURN_IF_ERROR(CheckSampling(options.sampling));
  const auto at_least = [](std::string_view name, int64_t value, int64_t least) {
    return value >= least
               ? absl::OkStatus()
               : ConfigError(absl::StrCat(absl::string_view(name.data(), name.size()), " is ",
                                          value, ", but must be at least ", least));
  };
  OSLER_RETURN_IF_ERROR(at_least("max-new-tokens", options.max_new_tokens, 1));
  OSLER_RETURN_IF_ERROR(at_least("min-new-tokens", options.min_new_tokens, 0));
  OSLER_RETURN_IF_ERROR(at_least("samples", options.samples, 1));
  OSLER_RETURN_IF_ERROR(at_least("batch", options.batch, 1));
  if (options.samples > 1 && options.sampling.temperature == 0) {
    return ConfigError(absl::StrCat(options.samples,
                                    " samples at temperature 0 would all be the same; set a "
                                    "temperature above 0"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Generator>> Generator::Load(Fs& fs,
                                                           const std::string& model_directory,
                                                           at::ScalarType dtype) {
  std::unique_ptr<Generator> generator(new Generator());
  OSLER_ASSIGN_OR_RETURN(generator->spec_, LoadModelSpec(fs, model_directory));
  generator->model_ = generator->spec_.build(generator->store_);
  OSLER_RETURN_IF_ERROR(
      LoadWeights(fs, model_directory, generator->spec_, dtype, generator->store_));
  return generator;
}

absl::Status Generator::CheckPrompt(std::span<const int32_t> ids) const {
  if (ids.empty()) return DataError("the prompt has no tokens; give at least one");
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < model_.vocab_size) continue;
    return DataError(absl::StrCat("id ", ids[i], " at position ", i,
                                  " is not in the model's vocabulary of ", model_.vocab_size));
  }
  if (static_cast<int64_t>(ids.size()) >= model_.max_positions) {
    return DataError(absl::StrCat("the prompt has ", ids.size(), " tokens, but the model has ",
                                  model_.max_positions,
                                  " positions (max_position_embeddings), of which a new token "
                                  "needs one; shorten the prompt"));
  }
  return absl::OkStatus();
}

absl::StatusOr<GenerationStats> Generator::Generate(std::span<const std::vector<int32_t>> prompts,
                                                    const GenerationOptions& options,
                                                    GenerationListener& listener) {
  OSLER_RETURN_IF_ERROR(CheckOptions(options));
  GenerationStats stats;
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    const at::NoGradGuard no_grad;
    GenerationBatch batch(model_, store_, prompts, options, listener);
    while (batch.unfinished()) OSLER_RETURN_IF_ERROR(batch.Step());
    stats = batch.stats();
    return absl::OkStatus();
  }));
  return stats;
}

}  // namespace osler
