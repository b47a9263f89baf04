// Attention of one run on one rank against the same split over context ranks (threads of this
// process, one OpenMP thread each): seconds of forward and backward, and bytes that a rank sends.
//
//   context_bench [tokens] [heads] [key_heads] [width] [window]
#include <ATen/Parallel.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/interval_attention.h"
#include "parallel/context_attention.h"
#include "parallel/context_split.h"
#include "parallel/local/local_communicator.h"

namespace osler {
namespace {

constexpr int kRepeats = 3;

struct Shape {
  int64_t tokens, heads, key_heads, width, window;
};

using Attention = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Forward and backward over `rows` random rows, the best of a few runs.
double Seconds(const Shape& shape, at::ScalarType dtype, int64_t rows, const Attention& attend) {
  std::vector<at::Tensor> x;
  for (const int64_t heads : {shape.heads, shape.key_heads, shape.key_heads})
    x.push_back(at::randn({rows, heads, shape.width}).to(dtype).requires_grad_(true));
  double best = 1e30;
  for (int i = 0; i < kRepeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const at::Tensor out = attend(x);
    torch::autograd::grad({out}, x, {at::ones_like(out)});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::min(best, seconds.count());
  }
  return best;
}

struct Split {
  double seconds = 0;  // of the slowest rank
  double sent = 0;     // MiB of the rank that sends most, a forward and a backward pass
};

Split OverRanks(const Shape& shape, at::ScalarType dtype, const MaskIntervals& mask, int ranks,
                ContextMethod method) {
  const std::optional<int64_t> window =
      shape.window > 0 ? std::optional(shape.window) : std::nullopt;
  const std::vector<MaskedLayers> layers = {{.mask = mask}};
  const ContextSplit split = SplitContext(TokenCosts(layers, shape.tokens, 0), ranks);
  auto group = MakeLocalGroup(ranks);
  std::vector<Split> results(group.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < group.size(); ++r) {
    threads.emplace_back([&, r, comm = std::move(group[r])] {
      at::set_num_threads(1);
      const int64_t rows = TokenCount(split.ranges[r]);
      const ContextAttention attention(*comm, split, {{.mask = mask, .window = window}}, rows,
                                       method);
      results[r].seconds = Seconds(shape, dtype, rows, [&](const std::vector<at::Tensor>& x) {
        return attention.Attend(0, x[0], x[1], x[2], {.scale = 0.1});
      });
      results[r].sent = static_cast<double>(comm->traffic().bytes_sent) / kRepeats / (1 << 20);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Split worst;
  for (const Split& one : results) {
    worst.seconds = std::max(worst.seconds, one.seconds);
    worst.sent = std::max(worst.sent, one.sent);
  }
  return worst;
}

void Compare(const Shape& shape, at::ScalarType dtype) {
  const MaskIntervals mask = CausalDocumentIntervals(
      {0}, shape.tokens, shape.window > 0 ? std::optional(shape.window) : std::nullopt);
  at::set_num_threads(1);
  const double one = Seconds(shape, dtype, shape.tokens, [&](const std::vector<at::Tensor>& x) {
    return IntervalAttention(x[0], x[1], x[2], mask, {.scale = 0.1});
  });
  const char* name = dtype == at::kFloat ? "fp32" : "bf16";
  std::printf("%s  1 rank           %8.3f s\n", name, one);
  for (const int ranks : {2, 4}) {
    for (const ContextMethod method : {ContextMethod::kGather, ContextMethod::kRing}) {
      if (shape.window > 0 && method == ContextMethod::kRing) continue;  // windows always fetch
      const Split split = OverRanks(shape, dtype, mask, ranks, method);
      std::printf("%s  %d ranks, %-6s  %8.3f s  speed-up %.2f  sent %.1f MiB\n", name, ranks,
                  method == ContextMethod::kRing ? "ring" : "gather", split.seconds,
                  one / split.seconds, split.sent);
    }
  }
}

int64_t Argument(int argc, char** argv, int index, int64_t fallback) {
  return argc > index ? std::atoll(argv[index]) : fallback;
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) {
  using osler::Argument;
  const osler::Shape shape = {.tokens = Argument(argc, argv, 1, 16384),
                              .heads = Argument(argc, argv, 2, 4),
                              .key_heads = Argument(argc, argv, 3, 2),
                              .width = Argument(argc, argv, 4, 128),
                              .window = Argument(argc, argv, 5, 0)};
  std::printf("%ld tokens, %ld heads on %ld, width %ld, window %ld\n",
              static_cast<long>(shape.tokens), static_cast<long>(shape.heads),
              static_cast<long>(shape.key_heads), static_cast<long>(shape.width),
              static_cast<long>(shape.window));
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) osler::Compare(shape, dtype);
  return 0;
}
