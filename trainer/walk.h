// The walk: a model's blocks forward and back over one micro-batch. Autograd lives only inside one
// block.
//
// Forward hands each block detached leaves of its input and parameters; backward takes
// autograd::grad of one block at a time, adds parameter gradients to the store and passes the
// input's gradient on. The loss and its gradient with respect to the last hidden state and the head
// come from LinearCrossEntropy.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/block.h"
#include "model/parameter_store.h"
#include "trainer/micro_batch.h"

namespace osler {

// kNone keeps every block's graph; kFull keeps every block's input and computes its forward again
// when going back.
enum class RecomputeMode { kNone, kFull };

struct LossSum {
  double sum = 0;  // Σ −log p over targets
  int64_t count = 0;
};

// Not thread-safe; model and store must outlive it. Throws c10::Error (CatchTorch at the caller).
class Walk {
 public:
  Walk(const Model& model, ParameterStore& store, RecomputeMode recompute)
      : model_(model), store_(store), recompute_(recompute) {}

  // Adds gradient_scale · ∂(loss sum)/∂parameter to every trainable slot's gradient. Blocks below
  // the lowest one with a trainable parameter run forward only and keep nothing.
  LossSum ForwardBackward(const MicroBatch& batch, double gradient_scale);
  // Forward only.
  LossSum Evaluate(const MicroBatch& batch);
  // The last hidden state [T, D], without gradients.
  at::Tensor Hidden(const SequenceInputs& inputs);

 private:
  struct Saved {
    at::Tensor x;  // the block's input, a leaf (undefined for the first block)
    std::vector<at::Tensor> leaves;
    at::Tensor out;  // with its graph; undefined when recomputing
  };
  size_t LowestTrainable() const;  // the number of blocks when none is
  // Which gradients a block's graph is to give.
  enum class Graph { kNone, kParameters, kParametersAndInput };
  Saved RunBlock(const Block& block, const at::Tensor& x, const SequenceInputs& inputs,
                 Graph graph) const;
  at::Tensor BackwardBlock(const Block& block, Saved saved, const at::Tensor& grad_out,
                           const SequenceInputs& inputs, Graph graph);

  const Model& model_;
  ParameterStore& store_;
  RecomputeMode recompute_;
};

}  // namespace osler
