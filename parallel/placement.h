// Where a weight lives on the mesh's tensor axis (Megatron-style tensor parallelism, Shoeybi et al.
// 2019), as data: a family's table of rules says it once for loading, training, checkpoints and
// export.
//
// Other axes ask nothing of a single weight: pipeline takes whole blocks, shard cuts any tensor
// into flat pieces, data and context hold copies.
#pragma once

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

}  // namespace osler
