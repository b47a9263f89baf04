#include "kernels/gated_mlp.h"

#include "tests/kernels/testing.h"
#include "tests/testing/tensor_memory.h"

namespace osler {
namespace {

using testing::Difference;
using testing::ExpectGradientsOfDifferences;
using testing::Gradients;
using testing::RandomLeaf;
using testing::RelativeNorm;
using testing::WideLeaf;

// x [T, D], gate and up [F, D], down [D, F].
std::vector<at::Tensor> Leaves(int64_t tokens, int64_t width, int64_t features,
                               at::ScalarType dtype = at::kDouble) {
  return {RandomLeaf({tokens, width}, dtype), RandomLeaf({features, width}, dtype),
          RandomLeaf({features, width}, dtype), RandomLeaf({width, features}, dtype)};
}

at::Tensor Mlp(const std::vector<at::Tensor>& v, GateKind kind, int64_t chunk_tokens) {
  return GatedMlp(v[0], v[1], v[2], v[3], kind, chunk_tokens);
}

// The definition, with ATen's own operations.
at::Tensor Reference(const std::vector<at::Tensor>& v, GateKind kind) {
  const at::Tensor gate = at::matmul(v[0], v[1].t()), up = at::matmul(v[0], v[2].t());
  const at::Tensor act = kind == GateKind::kSilu ? at::silu(gate) : at::gelu(gate, "tanh");
  return at::matmul(act * up, v[3].t());
}

TEST(GatedMlp, ChunksGiveTheValuesAndGradientsOfTheWhole) {
  at::manual_seed(1);
  for (const GateKind kind : {GateKind::kGeluTanh, GateKind::kSilu}) {
    const std::vector<at::Tensor> leaves = Leaves(29, 12, 20);
    const at::Tensor weights = at::randn({29, 12}, at::kDouble);
    const at::Tensor expected = Reference(leaves, kind);
    const auto expected_grads = Gradients(expected, weights, leaves);
    for (const int64_t chunk : {0, 1, 7, 28, 29, 64}) {
      const at::Tensor out = Mlp(leaves, kind, chunk);
      EXPECT_LT(RelativeNorm(out, expected), 1e-12) << chunk;
      const auto grads = Gradients(out, weights, leaves);
      for (size_t i = 0; i < grads.size(); ++i) {
        EXPECT_GT(expected_grads[i].norm().item<double>(), 0) << i;
        EXPECT_LT(RelativeNorm(grads[i], expected_grads[i]), 1e-12) << chunk << " " << i;
      }
    }
  }
}

TEST(GatedMlp, GradientsMatchDifferences) {
  at::manual_seed(2);
  ExpectGradientsOfDifferences([](const auto& v) { return Mlp(v, GateKind::kSilu, 2); },
                               Leaves(5, 3, 4));
}

TEST(GatedMlp, FrozenPartsGetNoGradientAndTheOthersTheirs) {
  at::manual_seed(3);
  std::vector<at::Tensor> leaves = Leaves(9, 4, 6);
  const at::Tensor weights = at::randn({9, 4}, at::kDouble);
  const auto all = Gradients(Mlp(leaves, GateKind::kSilu, 4), weights, leaves);
  for (size_t wanted = 0; wanted < leaves.size(); ++wanted) {
    for (size_t i = 0; i < leaves.size(); ++i)
      leaves[i] = leaves[i].detach().requires_grad_(i == wanted);
    const at::Tensor out = Mlp(leaves, GateKind::kSilu, 4);
    EXPECT_LT(Difference(Gradients(out, weights, {leaves[wanted]})[0], all[wanted]), 1e-13);
  }
}

// Sums over chunks are fp32; only a chunk's own product is rounded.
TEST(GatedMlp, Bf16ErrsNoMoreThanUntiled) {
  at::manual_seed(4);
  std::vector<at::Tensor> leaves = Leaves(512, 32, 48, at::kBFloat16), wide;
  for (const at::Tensor& leaf : leaves) wide.push_back(WideLeaf(leaf));
  const at::Tensor weights = at::randn({512, 32});
  const at::Tensor exact = Reference(wide, GateKind::kSilu);
  const auto exact_grads = Gradients(exact, weights, wide);
  const at::Tensor whole = Mlp(leaves, GateKind::kSilu, 0),
                   tiled = Mlp(leaves, GateKind::kSilu, 16);
  EXPECT_LT(RelativeNorm(tiled, exact), 1.25 * RelativeNorm(whole, exact));
  const auto grads = Gradients(whole, weights, leaves),
             tiled_grads = Gradients(tiled, weights, leaves);
  for (size_t i = 0; i < grads.size(); ++i) {
    EXPECT_EQ(tiled_grads[i].scalar_type(), at::kBFloat16);
    EXPECT_LT(RelativeNorm(tiled_grads[i], exact_grads[i]),
              1.25 * RelativeNorm(grads[i], exact_grads[i]))
        << i;
  }
}

TEST(GatedMlp, KeepsItsInputAloneAndNeedsAChunkAtOnce) {
  const int64_t tokens = 2048, width = 16, features = 256, chunk = 64;
  const std::vector<at::Tensor> leaves = Leaves(tokens, width, features, at::kFloat);
  const at::Tensor weights = at::randn({tokens, width});
  const int64_t row = features * static_cast<int64_t>(sizeof(float)),
                hidden = tokens * width * static_cast<int64_t>(sizeof(float)), matrix = width * row;
  {
    testing::TensorMemory memory;
    const at::Tensor out = Mlp(leaves, GateKind::kSilu, 0);
    EXPECT_GE(memory.live(), 3 * tokens * row);  // what the tiles save
  }
  testing::TensorMemory memory;
  const at::Tensor out = Mlp(leaves, GateKind::kSilu, chunk);
  EXPECT_EQ(memory.live(), hidden);  // the output; the input was there before
  EXPECT_LE(memory.TakePeak(), hidden + 4 * chunk * row);
  const auto grads = Gradients(out, weights, leaves);
  EXPECT_LE(memory.TakePeak(), 2 * hidden + 3 * matrix + 6 * chunk * row);
}

TEST(GatedMlp, NoTokensAndBadChunks) {
  const std::vector<at::Tensor> leaves = Leaves(0, 4, 6), some = Leaves(3, 4, 6);
  EXPECT_EQ(Mlp(leaves, GateKind::kSilu, 2).sizes(), (std::vector<int64_t>{0, 4}));
  EXPECT_THROW(Mlp(some, GateKind::kSilu, -1), c10::Error);
}

}  // namespace
}  // namespace osler
