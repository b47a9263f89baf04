#include "trainer/weights.h"

#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/weights.h"

namespace osler {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// The checkpoint's name of every slot; a tensor spelled exactly as the slot wins over a tied copy.
absl::StatusOr<std::vector<std::string>> MatchNames(const WeightDirectory& weights,
                                                    const ModelSpec& spec,
                                                    const std::string& directory,
                                                    const ParameterStore& store) {
  std::vector<std::string> sources(store.slots().size());
  for (const std::string& name : weights.names()) {
    const std::optional<std::string> canonical = spec.canonical_name(name);
    if (!canonical.has_value()) continue;
    const int64_t index = store.Find(*canonical);
    if (index < 0) {
      return ConfigError(absl::StrCat(directory, ": unexpected tensor ", name, " for a ",
                                      spec.family,
                                      " model; config.json and weights do not belong together"));
    }
    std::string& source = sources[static_cast<size_t>(index)];
    if (source.empty() || name.find("lm_head") == std::string::npos) source = name;
  }
  return sources;
}

}  // namespace

absl::Status LoadWeights(Fs& fs, const std::string& directory, const ModelSpec& spec,
                         at::ScalarType dtype, ParameterStore& store) {
  OSLER_ASSIGN_OR_RETURN(const auto weights, WeightDirectory::Open(fs, directory));
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> sources,
                         MatchNames(*weights, spec, directory, store));
  for (size_t i = 0; i < sources.size(); ++i) {
    ParameterSlot& slot = store.slots()[i];
    if (sources[i].empty()) {
      return ConfigError(
          absl::StrCat(directory, ": tensor ", slot.name, " is missing from the weights"));
    }
    const TensorInfo& info = weights->info(sources[i]);
    if (info.shape != slot.shape) {
      return ConfigError(absl::StrCat(directory, ": tensor ", sources[i], " has shape ",
                                      ShapeText(info.shape), ", config.json asks for ",
                                      ShapeText(slot.shape)));
    }
    if (!slot.present) continue;
    OSLER_ASSIGN_OR_RETURN(const at::Tensor value, weights->Tensor(sources[i]));
    OSLER_RETURN_IF_ERROR(CatchTorch([&] {
      store.Allocate(static_cast<int64_t>(i), dtype);
      store.TakeValue(static_cast<int64_t>(i), value);
      return absl::OkStatus();
    }));
  }
  return absl::OkStatus();
}

}  // namespace osler
