// The gradients of one step of a tiny model under any layout, over thread ranks in fp64: what tests
// compare with one rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/loader.h"
#include "model/parameter_store.h"
#include "parallel/context_attention.h"
#include "parallel/mesh.h"
#include "trainer/optim/adamw.h"
#include "trainer/walk.h"

namespace osler::testing {

// A model and a global batch. Parameters are all drawn at random, the same under every layout.
struct TinyCase {
  std::string config = {};                // the text of a config.json
  std::vector<std::string> trained = {};  // beginnings of the names of what is trained; empty: all
  int packs = 7;
  int steps = 0;  // of AdamW after the gradients were compared
};
// Three layers each, an odd vocabulary where nothing cuts it; fields of the family.
std::string TinyGemma(int layers, bool tied_head);
std::string TinyLlama(int layers, bool tied_head);
Pack RandomPack(int64_t number, int64_t vocab_size);

struct Layout {
  std::string name = {};
  MeshShape mesh = {};
  int chunks = 1;  // of a pipeline stage
  ZeroLevel zero = ZeroLevel::kOptimizer;
  int micro_batch = 1;  // packs
  ContextMethod context_method = ContextMethod::kAuto;
  WalkOptions walk = {};
  StatePlace state = StatePlace::kWithParameters;  // of the optimizer
  // What carries the axes' collectives; null: the world itself.
  std::function<absl::StatusOr<std::unique_ptr<Communicator>>(Communicator& world)> devices = {};
};
// "pipeline 2 × data 2", or the layout's name.
std::string Describe(const Layout& layout);

struct Outcome {
  std::map<std::string, at::Tensor> gradients;   // whole, of the trained parameters
  std::map<std::string, at::Tensor> parameters;  // whole, after the steps
  double norm = 0;                               // as the reducer says
  LossSum loss;                                  // of the step, over all ranks
  std::vector<LossSum> evaluated;                // by pack
  // What the first rank sent along each axis for the gradients, and in the updates after them.
  std::array<int64_t, kAxes> gradient_bytes{}, update_bytes{};
};
// Fails the test when a rank fails, or when ranks that hold the same gradient differ in a bit.
Outcome Compute(const TinyCase& tiny, const Layout& layout);

// ‖Δg‖ ≤ 1e-10 · max(‖g‖, 1e-6 · global norm) for each parameter (DESIGN §5), and losses alike;
// parameters after the steps within 1e-10 of their norm. All gradients of `one` must be > 0.
void ExpectSame(const Outcome& one, const Outcome& other);

// A step of one micro-batch by a process alone, whose store then has the gradients of
// gradient_scale · loss.
LossSum StepAlone(const Model& model, ParameterStore& store, const MicroBatch& batch,
                  double gradient_scale, const WalkOptions& options = {});

}  // namespace osler::testing
