// What a gated MLP keeps for its backward pass and needs at once, with and without tiling over
// tokens.
//
//   mlp_memory_bench [tokens] [width] [features] [chunk_tokens]
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/gated_mlp.h"
#include "tests/testing/tensor_memory.h"

namespace {

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

void Measure(const std::vector<at::Tensor>& leaves, int64_t chunk_tokens) {
  osler::testing::TensorMemory memory;
  const auto begin = std::chrono::steady_clock::now();
  const at::Tensor out = osler::GatedMlp(leaves[0], leaves[1], leaves[2], leaves[3],
                                         osler::GateKind::kSilu, chunk_tokens);
  const int64_t output = out.numel() * static_cast<int64_t>(out.element_size());
  const int64_t kept = memory.live() - output, forward = memory.TakePeak() - output;
  const at::Tensor grad = at::ones_like(out);
  memory.TakePeak();
  torch::autograd::grad({out}, leaves, {grad});
  const int64_t backward = memory.TakePeak() - kept - 2 * output;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf("%8ld %14.1f %14.1f %14.1f %9.2f\n", static_cast<long>(chunk_tokens), MiB(kept),
              MiB(forward), MiB(backward), seconds.count());
}

int64_t Argument(int argc, char** argv, int index, int64_t fallback) {
  return argc > index ? std::atoll(argv[index]) : fallback;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t tokens = Argument(argc, argv, 1, 32768), width = Argument(argc, argv, 2, 640),
                features = Argument(argc, argv, 3, 2048), chunk = Argument(argc, argv, 4, 1024);
  std::vector<at::Tensor> leaves = {at::randn({tokens, width}), at::randn({features, width}),
                                    at::randn({features, width}), at::randn({width, features})};
  for (at::Tensor& leaf : leaves) leaf.requires_grad_(true);
  std::printf("%ld tokens, width %ld, %ld features, fp32: MiB beside input and output\n",
              static_cast<long>(tokens), static_cast<long>(width), static_cast<long>(features));
  std::printf("%8s %14s %14s %14s %9s\n", "chunk", "kept", "forward peak", "backward adds",
              "seconds");
  for (const int64_t c : {int64_t{0}, 4 * chunk, chunk, chunk / 4}) Measure(leaves, c);
  return 0;
}
