// What store.cc, store_save.cc (writing) and store_load.cc (reading) share.
#pragma once

#include <unistd.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "checkpoint/dtype.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/store.h"
#include "parallel/tensor_part.h"

namespace osler {

inline constexpr char kLatestName[] = "latest", kBestName[] = "best";
inline constexpr char kTensorFileSuffix[] = ".safetensors";

inline std::string OwnName(const std::string& path, const char* kind) {
  return absl::StrCat(path, kind, getpid());
}

inline constexpr char kTemporary[] = ".tmp-", kReplaced[] = ".old-";

// Of the whole tensor.
inline std::vector<int64_t> ShapeOf(const StateEntry& entry) {
  return entry.part.has_value() ? entry.part->shape : entry.tensor.sizes().vec();
}
inline TensorPart PartOf(const StateEntry& entry) {
  return entry.part.has_value() ? *entry.part : WholeTensor(entry.tensor.sizes().vec());
}

}  // namespace osler
