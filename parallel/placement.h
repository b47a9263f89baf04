// Where a weight lives on the mesh's tensor axis (Megatron-style tensor parallelism, Shoeybi et al.
// 2019), as data: a family's table of rules says it once for loading, training, checkpoints and
// export.
//
// Other axes ask nothing of a single weight: pipeline takes whole blocks, shard cuts any tensor
// into flat pieces, data and context hold copies.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace osler {

enum class Split {
  kReplicated,  // every rank holds all of it
  kColumn,      // by output features, dim 0 of a [out, in] matrix or of a bias: no sum is needed
  kRow,         // by input features, dim 1 of a [out, in] matrix: the ranks' outputs are summed
  kVocabulary,  // by tokens, dim 0 of [V, D]: lookups of others' tokens give zeros, which are
                // summed; as a head, each rank has the logits of its tokens
};

// The dim that is cut in equal, contiguous parts along the tensor axis, rank r holding the r-th;
// nullopt: none.
std::optional<int> SplitDim(Split split);

struct PlacementRule {
  // A parameter's name, where "*" stands for one part between dots:
  // "model.layers.*.mlp.up_proj.weight".
  std::string pattern;
  Split split = Split::kReplicated;
  // Parts are whole multiples of this many rows or columns: a head's width where heads must stay in
  // one piece. With fewer such units than ranks (grouped keys), neighbours hold the same unit.
  int64_t unit = 1;

  bool operator==(const PlacementRule&) const = default;
};
using PlacementRules = std::vector<PlacementRule>;

// Whether the rule speaks of the parameter. In a family's table exactly one does.
bool Matches(const PlacementRule& rule, std::string_view parameter);
// The first rule that does, or nullptr.
const PlacementRule* FindRule(const PlacementRules& rules, std::string_view parameter);

// What one rank of the tensor axis holds of a parameter: [begin, begin + length) of `dim`, all of
// the other dims.
struct TensorSlice {
  int dim = 0;
  int64_t begin = 0, length = 0;
  // So many neighbouring ranks, those with the same rank / copies, hold this very slice: 1 where
  // every rank has its own, all of them for a replicated parameter, those that share a head of
  // grouped keys. Each has the gradient of what it computed with it; their sum is the parameter's.
  int copies = 1;

  bool operator==(const TensorSlice&) const = default;
};

// The slice of rank `rank` of `size`. Units stay whole: equal shares of them, or one unit each when
// there are fewer than ranks. PRE (else throws c10::Error): the units are a multiple of the ranks;
// for columns they may also divide them. CheckLayout (model/layout.h) says so for people.
TensorSlice SliceFor(const PlacementRule& rule, const std::vector<int64_t>& shape, int rank,
                     int size);

// The shape of the slice of a parameter of that shape.
std::vector<int64_t> SlicedShape(std::vector<int64_t> shape, const TensorSlice& slice);

// A view of the slice of the whole parameter.
at::Tensor Narrow(const at::Tensor& whole, const TensorSlice& slice);

}  // namespace osler
