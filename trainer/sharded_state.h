// A run's tensors as its checkpoints have them, and which rank writes which part of them.
//
// The group "weights" has every parameter, "optimizer" NAME.exp_avg and NAME.exp_avg_sq of those
// that are trained, and NAME.master of bf16 ones. A rank has its pieces of those of its pipeline
// stage and tensor slice. Ranks that have the same pieces share the writing of them: each is
// written by one, and about as many bytes by each. So a checkpoint loads in any layout, and nothing
// is sent to save one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/store.h"
#include "model/parameter_store.h"
#include "parallel/mesh.h"
#include "trainer/optim/adamw.h"

namespace osler {

// Which of `ranks` that have the same tensors writes each: the next goes to the one with the fewest
// bytes so far.
std::vector<int64_t> DealWriters(const std::vector<int64_t>& bytes, int64_t ranks);

// Not thread-safe; what it is given must outlive it.
class ShardedState {
 public:
  // Collective over the pipeline axis. Throws c10::Error.
  ShardedState(ParameterStore& store, AdamW& optimizer, Mesh& mesh);

  // What CheckpointStore is to write of this rank's, and what it is to load. The tensors share
  // memory with store and optimizer; the names are the same on all ranks. Below ZeRO 3 a rank loads
  // its whole slices of the parameters, of which it saves its pieces.
  CheckpointState ToSave() const;
  CheckpointState ToLoad() const;

  // Files are of CPU tensors: Load reads into `state`, or, where its tensors are on a device, into
  // CPU memory and from there into them.
  static absl::Status Load(const CheckpointStore& store, int64_t step, CheckpointState& state);

 private:
  // A tensor of one parameter's shape.
  struct Source {
    std::string group, name;
    int64_t slot = 0;
    at::Tensor piece;  // this rank's; empty in other pipeline stages
  };
  void FindHolders();
  void AddSource(const char* group, const std::string& suffix, int64_t slot,
                 const at::Tensor& piece, at::ScalarType dtype);
  at::ScalarType ParameterType() const;
  StateEntry PieceOf(const Source& source) const;
  // Of ranks along data and context, which have the same pieces, the one that writes each source.
  std::vector<int64_t> Writers() const;
  bool SpeaksForCopies(int64_t slot) const;

  ParameterStore& store_;
  Mesh& mesh_;
  std::vector<int64_t> holder_;  // by slot: the first pipeline stage that has it
  std::vector<Source> sources_;  // the same list on all ranks
};

}  // namespace osler
