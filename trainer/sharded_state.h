// A run's tensors as its checkpoints have them: whole, whatever rank holds which part of them.
//
// weights.safetensors has every parameter, optimizer.safetensors NAME.exp_avg and NAME.exp_avg_sq
// of those that are trained, and NAME.master of bf16 ones. The files do not depend on the layout,
// so one loads in any other. Saving brings one tensor after the other together on the first rank,
// and no rank ever holds more than that of what is not its own; loading reads this rank's parts
// from the mapped files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "checkpoint/store.h"
#include "model/parameter_store.h"
#include "parallel/mesh.h"
#include "trainer/optim/adamw.h"

namespace osler {

// Not thread-safe; what it is given must outlive it.
class ShardedState {
 public:
  // Collective over the pipeline axis. Throws c10::Error.
  ShardedState(ParameterStore& store, AdamW& optimizer, Mesh& mesh);

  // For CheckpointStore: Load on any rank, each taking its own parts; Save inside of SaveOnFirst
  // alone. Where every axis but data is 1 the tensors share memory with store and optimizer.
  CheckpointState Entries();

  // Collective over the mesh: runs `save` on the first rank while the others send it the parts that
  // it asks for. Every rank returns its status; an error in the middle keeps nobody waiting.
  absl::Status SaveOnFirst(absl::FunctionRef<absl::Status()> save);

 private:
  // A tensor of one parameter's shape, in pieces.
  struct Source {
    std::string file, name;
    int64_t slot = 0;
    at::ScalarType dtype = at::kFloat;
    at::Tensor piece;  // this rank's; undefined in other pipeline stages
  };
  struct Owner {
    int rank = 0;  // of the world
    TensorSlice slice;
    int64_t begin = 0, count = 0;  // of the flat slice
  };
  void FindHolders();
  void AddSource(const char* file, const std::string& suffix, int64_t slot, at::ScalarType dtype,
                 const at::Tensor& piece);
  at::ScalarType ParameterType() const;
  std::vector<Owner> OwnersOf(int64_t slot) const;
  int RankAt(int stage, int shard, int tensor) const;
  at::Tensor Assemble(size_t source);
  void SendPart(size_t source);
  void Take(const Source& source, const at::Tensor& whole);
  void ServeFirst();

  ParameterStore& store_;
  AdamW& optimizer_;
  Mesh& mesh_;
  bool whole_;                   // on every rank
  std::vector<int64_t> holder_;  // by slot: the first pipeline stage that has it
  std::vector<Source> sources_;  // the same list on all ranks
};

}  // namespace osler
