#include "trainer/scorer.h"

#include <ATen/core/grad_mode.h>

#include "base/status_macros.h"
#include "base/torch_status.h"
#include "kernels/linear_cross_entropy.h"
#include "trainer/walk.h"
#include "trainer/weights.h"

namespace osler {
namespace {

constexpr int64_t kChunkTokens = 512;

// All sequences as one pack in which every token is a target.
Pack JoinSequences(const std::vector<std::vector<int32_t>>& sequences) {
  Pack pack;
  for (const auto& ids : sequences) {
    pack.doc_starts.push_back(static_cast<int32_t>(pack.tokens.size()));
    pack.tokens.insert(pack.tokens.end(), ids.begin(), ids.end());
  }
  pack.labels = pack.tokens;
  return pack;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Scorer>> Scorer::Load(Fs& fs, const std::string& model_directory,
                                                     at::ScalarType dtype) {
  std::unique_ptr<Scorer> scorer(new Scorer());
  OSLER_ASSIGN_OR_RETURN(scorer->spec_, LoadModelSpec(fs, model_directory));
  scorer->model_ = scorer->spec_.build(scorer->store_);
  OSLER_RETURN_IF_ERROR(LoadWeights(fs, model_directory, scorer->spec_, dtype, scorer->store_));
  return scorer;
}

absl::StatusOr<std::vector<std::vector<double>>> Scorer::LogProbs(
    const std::vector<std::vector<int32_t>>& sequences) {
  std::vector<std::vector<double>> result;
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    const at::NoGradGuard no_grad;
    const Pack pack = JoinSequences(sequences);
    const MicroBatch batch = MakeMicroBatch(model_, {&pack, 1});
    Walk walk = Walk::Alone(model_, store_, {});
    const at::Tensor log_probs =
        TargetLogProbs(walk.Hidden(batch.inputs), store_.slot(model_.head_slot).local,
                       batch.targets_T, kChunkTokens)
            .to(at::kDouble)
            .contiguous();
    const double* values = log_probs.data_ptr<double>();
    for (const auto& ids : sequences) {
      result.emplace_back(values, values + ids.size() - 1);
      values += ids.size();
    }
    return absl::OkStatus();
  }));
  return result;
}

}  // namespace osler
