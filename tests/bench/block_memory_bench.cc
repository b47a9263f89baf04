// Bytes a token costs in one decoder layer: what it keeps for the backward pass, and the most that
// is live at once in its forward and backward pass, under a ring of context ranks (threads of this
// process). Two lengths are measured; their difference over the tokens leaves parameters and their
// gradients out. docs/long_context.md makes its table of these.
//
//   block_memory_bench [shape] [ranks] [chunk_tokens] [tokens of a rank] [fp32 | bf16]
//
// Shapes: medgemma-4b, medgemma-27b, and these with every width divided by 16, medgemma-4b/16 and
// medgemma-27b/16: bytes of activations are a 16th, and those of weights' gradients, which decide
// where a short sequence has its peak, a 256th, so that 4096 tokens stand for 65536.
#include <ATen/Parallel.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/registry.h"
#include "parallel/local/local_communicator.h"
#include "tests/testing/tensor_memory.h"
#include "trainer/micro_batch.h"

namespace osler {
namespace {

struct Shape {
  int64_t hidden, intermediate, heads, key_heads, head_dim;
};
const std::map<std::string, Shape> kShapes = {{"medgemma-4b", {2560, 10240, 8, 4, 256}},
                                              {"medgemma-27b", {5376, 21504, 32, 16, 128}},
                                              {"medgemma-4b/16", {160, 640, 8, 4, 16}},
                                              {"medgemma-27b/16", {336, 1344, 32, 16, 8}}};

// One global layer of Gemma 3.
std::string Config(const Shape& s) {
  return absl::StrCat(
      R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": 64,)",
      R"( "num_hidden_layers": 1, "layer_types": ["full_attention"], "hidden_size": )", s.hidden,
      R"(, "intermediate_size": )", s.intermediate, R"(, "num_attention_heads": )", s.heads,
      R"(, "num_key_value_heads": )", s.key_heads, R"(, "head_dim": )", s.head_dim,
      R"(, "query_pre_attn_scalar": 256, "sliding_window": 1024,)",
      R"( "max_position_embeddings": 131072})");
}

struct Bytes {
  int64_t kept = 0, forward = 0, backward = 0;
};

Bytes Measure(const Model& model, const ParameterStore& store, Communicator& comm, int64_t tokens,
              int64_t chunk_tokens, at::ScalarType dtype) {
  Pack pack;
  pack.tokens.assign(static_cast<size_t>(tokens * comm.size()), 1);
  pack.labels = pack.tokens;
  pack.doc_starts = {0};
  const Block& layer = *model.blocks[1];
  testing::TensorMemory memory;
  const MicroBatch batch = MakeMicroBatch(model, {&pack, 1},
                                          {.context = comm.size() > 1 ? &comm : nullptr,
                                           .context_method = ContextMethod::kRing,
                                           .mlp_chunk_tokens = chunk_tokens});
  const at::Tensor x = at::randn({tokens, model.hidden_size}).to(dtype).requires_grad_(true);
  std::vector<at::Tensor> wanted = {x}, leaves;
  for (const int64_t slot : layer.slots()) {
    leaves.push_back(store.slot(slot).local.detach().requires_grad_(true));
    wanted.push_back(leaves.back());
  }
  const int64_t before = memory.live();
  memory.TakePeak();
  Bytes bytes;
  const at::Tensor out = layer.Forward({x}, leaves, batch.inputs).x_TD;
  bytes.kept = memory.live() - before;
  bytes.forward = memory.TakePeak() - before;
  const at::Tensor gradient = at::ones_like(out);
  torch::autograd::grad({out}, wanted, {gradient});
  bytes.backward = memory.TakePeak() - before;
  return bytes;
}

// At `tokens` and half as many.
void MeasureRanks(const std::string& name, int ranks, int64_t chunk_tokens, int64_t tokens,
                  at::ScalarType dtype) {
  const auto spec = ParseModelSpec(Config(kShapes.at(name)), name);
  ParameterStore store;
  const Model model = spec->build(store);
  InitializeParameters(store, *spec, 1, dtype);
  auto group = MakeLocalGroup(ranks);
  std::vector<Bytes> per_token(group.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < group.size(); ++r) {
    threads.emplace_back([&, r, comm = std::move(group[r])] {
      at::set_num_threads(1);
      const Bytes few = Measure(model, store, *comm, tokens / 2, chunk_tokens, dtype);
      const Bytes many = Measure(model, store, *comm, tokens, chunk_tokens, dtype);
      const auto slope = [&](int64_t a, int64_t b) { return (b - a) / (tokens - tokens / 2); };
      per_token[r] = {slope(few.kept, many.kept), slope(few.forward, many.forward),
                      slope(few.backward, many.backward)};
    });
  }
  for (std::thread& thread : threads) thread.join();
  Bytes most;
  for (const Bytes& one : per_token) {
    most = {std::max(most.kept, one.kept), std::max(most.forward, one.forward),
            std::max(most.backward, one.backward)};
  }
  std::printf("%-15s %5s %6d %6ld %10ld %10ld %10ld\n", name.c_str(),
              dtype == at::kFloat ? "fp32" : "bf16", ranks, static_cast<long>(chunk_tokens),
              static_cast<long>(most.kept), static_cast<long>(most.forward),
              static_cast<long>(most.backward));
  std::fflush(stdout);
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) {
  const std::string shape = argc > 1 ? argv[1] : "medgemma-4b/16";
  const int ranks = argc > 2 ? std::atoi(argv[2]) : 2;
  const int64_t chunk = argc > 3 ? std::atoll(argv[3]) : 16;
  const int64_t tokens = argc > 4 ? std::atoll(argv[4]) : 4096;
  const std::string only = argc > 5 ? argv[5] : "";
  if (!osler::kShapes.contains(shape)) {
    std::fprintf(stderr, "block_memory_bench: no shape %s\n", shape.c_str());
    return 2;
  }
  std::printf("bytes a token; kept: with the output; forward, backward: the most live at once\n");
  std::printf("%-15s %5s %6s %6s %10s %10s %10s\n", "layer", "dtype", "ranks", "chunk", "kept",
              "forward", "backward");
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    if (only == (dtype == at::kFloat ? "bf16" : "fp32")) continue;
    for (const int64_t c : {int64_t{0}, chunk}) osler::MeasureRanks(shape, ranks, c, tokens, dtype);
  }
  return 0;
}
