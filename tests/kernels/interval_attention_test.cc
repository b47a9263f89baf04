#include "kernels/interval_attention.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "kernels/cpu_isa.h"
#include "kernels/interval_attention_cpu.h"
#include "tests/kernels/testing.h"

namespace osler {
namespace {

using testing::Difference;
using testing::Gradients;
using testing::RandomLeaf;
using testing::RelativeNorm;
using testing::SameBits;
using testing::WideLeaf;

// The whole S×T score matrix with ATen's ordinary operations in the inputs' dtype, differentiated
// by ATen's autograd: what the kernel must equal.
AttentionOutput ReferenceWithLse(const std::vector<at::Tensor>& x, const MaskIntervals& mask,
                                 const AttentionOptions& options) {
  const int64_t group = x[0].size(1) / x[1].size(1);
  const at::Tensor k = x[1].repeat_interleave(group, 1), v = x[2].repeat_interleave(group, 1);
  at::Tensor scores_HTS = at::einsum("thd,shd->hts", {x[0], k}) * options.scale;
  if (options.soft_cap) scores_HTS = at::tanh(scores_HTS / *options.soft_cap) * *options.soft_cap;
  const at::Tensor keys = at::arange(k.size(0)).unsqueeze(0);
  const at::Tensor seen_TS =
      (keys >= mask.lo_T.unsqueeze(1)).logical_and(keys < mask.hi_T.unsqueeze(1));
  // An empty row gets an ordinary softmax here and is replaced after: softmax of −∞ alone is not a
  // number.
  const at::Tensor empty_T1 = mask.lo_T.eq(mask.hi_T).unsqueeze(1);
  const at::Tensor hidden_TS = seen_TS.logical_not().logical_and(empty_T1.logical_not());
  const double nothing = -std::numeric_limits<double>::infinity();
  const at::Tensor masked_HTS = scores_HTS.masked_fill(hidden_TS, nothing);
  const at::Tensor out = at::einsum("hts,shd->thd", {masked_HTS.softmax(-1), v});
  return {.out_THD = out.masked_fill(empty_T1.unsqueeze(2), 0),
          .lse_TH = masked_HTS.logsumexp(-1).transpose(0, 1).masked_fill(empty_T1, nothing)};
}

at::Tensor Reference(const at::Tensor& q_THD, const at::Tensor& k_SHD, const at::Tensor& v_SHD,
                     const MaskIntervals& mask, double scale) {
  return ReferenceWithLse({q_THD, k_SHD, v_SHD}, mask, {.scale = scale}).out_THD;
}

MaskIntervals Mask(const std::vector<int32_t>& lo, const std::vector<int32_t>& hi) {
  return {at::tensor(lo, at::kInt), at::tensor(hi, at::kInt)};
}

struct Case {
  std::string name;
  int64_t heads, key_heads, width;
  std::vector<int32_t> starts;
  int64_t length;
  std::optional<int64_t> window;
};

class DocumentAttention : public ::testing::TestWithParam<Case> {};

TEST_P(DocumentAttention, EqualsDenseForwardAndBackward) {
  const Case& c = GetParam();
  at::manual_seed(1);
  const MaskIntervals mask = CausalDocumentIntervals(c.starts, c.length, c.window);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const std::vector<at::Tensor> x = {RandomLeaf({c.length, c.heads, c.width}, dtype),
                                       RandomLeaf({c.length, c.key_heads, c.width}, dtype),
                                       RandomLeaf({c.length, c.key_heads, c.width}, dtype)};
    const std::vector<at::Tensor> wide = {WideLeaf(x[0]), WideLeaf(x[1]), WideLeaf(x[2])};
    const double scale = 1 / std::sqrt(static_cast<double>(c.width));
    const at::Tensor out = IntervalAttention(x[0], x[1], x[2], mask, {.scale = scale});
    const at::Tensor expected = Reference(wide[0], wide[1], wide[2], mask, scale);
    const at::Tensor weights = at::randn({c.length, c.heads, c.width}, at::kDouble).to(dtype);
    const auto grads = Gradients(out, weights, x),
               expected_grads = Gradients(expected, weights, wide);
    const double tolerance = dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 2e-5 : 2e-2;
    EXPECT_EQ(out.scalar_type(), dtype);
    EXPECT_LT(RelativeNorm(out, expected), tolerance) << dtype;
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_LT(RelativeNorm(grads[i], expected_grads[i]), tolerance) << dtype << " input " << i;
      // With one key a row the softmax is 1, whatever q and k are.
      const bool alone = c.length == 1 || c.window == 1;
      EXPECT_TRUE((alone && i < 2) || grads[i].norm().item<double>() > 0.1) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, DocumentAttention,
    ::testing::Values(Case{"one_document", 2, 2, 8, {0}, 37, {}},
                      Case{"single_token", 2, 1, 16, {0}, 1, {}},
                      Case{"many_documents", 4, 1, 24, {0, 1, 2, 17, 40, 41}, 90, {}},
                      Case{"grouped", 4, 2, 72, {0, 33}, 70, {}},
                      Case{"window", 4, 2, 32, {0}, 300, 16},
                      Case{"window_of_one", 2, 1, 8, {0, 5}, 9, 1},
                      Case{"window_documents", 4, 1, 40, {0, 7, 150, 151, 290}, 420, 33},
                      Case{"window_wider_than_documents", 2, 2, 64, {0, 50}, 100, 64},
                      Case{"window_over_tiles", 2, 1, 128, {0, 10}, 700, 200},
                      Case{"widest_head", 4, 2, 256, {0, 100}, 210, 64}),
    [](const auto& info) { return info.param.name; });

// Every monotone interval, not only those of documents: fewer keys than queries, empty rows, whole
// rectangles.
TEST(IntervalAttention, TakesAnyMonotoneInterval) {
  at::manual_seed(2);
  const std::vector<MaskIntervals> masks = {
      Mask({0, 0, 0, 0, 0, 0}, {9, 9, 9, 9, 9, 9}),  // cross-attention
      Mask({0, 0, 1, 3, 3, 9}, {0, 2, 4, 4, 9, 9}),  // first and last row empty
      Mask({0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0}),  // nothing at all
      Mask({2, 2, 2, 5, 5, 5}, {3, 4, 5, 6, 7, 8}),  // documents that leave keys out
      Mask({0, 0, 0, 3, 4, 5}, {3, 3, 3, 4, 5, 6}),  // an image block, then causal
  };
  for (const MaskIntervals& mask : masks) {
    const std::vector<at::Tensor> x = {RandomLeaf({6, 4, 16}), RandomLeaf({9, 2, 16}),
                                       RandomLeaf({9, 2, 16})};
    const at::Tensor out = IntervalAttention(x[0], x[1], x[2], mask, {.scale = 0.3});
    const at::Tensor expected = Reference(x[0], x[1], x[2], mask, 0.3);
    const at::Tensor weights = at::randn_like(out);
    EXPECT_LT(Difference(out, expected), 1e-12);
    const auto grads = Gradients(out, weights, x), expected_grads = Gradients(expected, weights, x);
    for (size_t i = 0; i < 3; ++i) EXPECT_LT(Difference(grads[i], expected_grads[i]), 1e-12);
  }
}

TEST(IntervalAttention, RandomMonotoneIntervals) {
  at::manual_seed(3);
  uint64_t state = 7;
  const auto draw = [&](int64_t n) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(n));
  };
  for (int round = 0; round < 40; ++round) {
    const int64_t rows = 1 + draw(300), keys = 1 + draw(300);
    std::vector<int32_t> lo, hi;
    for (int64_t i = 0; i < rows; ++i) {
      const auto limit = static_cast<int32_t>(keys);
      const int32_t last_hi = hi.empty() ? 0 : hi.back(), last_lo = lo.empty() ? 0 : lo.back();
      hi.push_back(std::min(limit, last_hi + draw(4)));
      lo.push_back(std::min(hi.back(), last_lo + draw(5)));
    }
    const MaskIntervals mask = Mask(lo, hi);
    const std::vector<at::Tensor> x = {RandomLeaf({rows, 2, 8}), RandomLeaf({keys, 1, 8}),
                                       RandomLeaf({keys, 1, 8})};
    const at::Tensor out = IntervalAttention(x[0], x[1], x[2], mask, {.scale = 0.5});
    const at::Tensor expected = Reference(x[0], x[1], x[2], mask, 0.5);
    const at::Tensor weights = at::randn_like(out);
    ASSERT_LT(Difference(out, expected), 1e-12) << "round " << round;
    const auto grads = Gradients(out, weights, x), expected_grads = Gradients(expected, weights, x);
    for (size_t i = 0; i < 3; ++i)
      ASSERT_LT(Difference(grads[i], expected_grads[i]), 1e-12) << "round " << round;
  }
}

// Central differences of the kernel itself: the backward belongs to this forward.
TEST(IntervalAttention, GradientMatchesDifferences) {
  at::manual_seed(4);
  const MaskIntervals mask = CausalDocumentIntervals({0, 4}, 11, 3);
  std::vector<at::Tensor> x = {RandomLeaf({11, 2, 8}), RandomLeaf({11, 1, 8}),
                               RandomLeaf({11, 1, 8})};
  const at::Tensor weights = at::randn({11, 2, 8}, at::kDouble);
  const auto loss = [&] {
    return (IntervalAttention(x[0].detach(), x[1].detach(), x[2].detach(), mask, {.scale = 0.4}) *
            weights)
        .sum()
        .item<double>();
  };
  const auto grads =
      Gradients(IntervalAttention(x[0], x[1], x[2], mask, {.scale = 0.4}), weights, x);
  for (size_t i = 0; i < 3; ++i) {
    double* value = x[i].data_ptr<double>();
    for (int64_t j = 0; j < x[i].numel(); j += 5) {
      const double kept = value[j];
      value[j] = kept + 1e-5;
      const double up = loss();
      value[j] = kept - 1e-5;
      const double down = loss();
      value[j] = kept;
      EXPECT_NEAR(grads[i].flatten()[j].item<double>(), (up - down) / 2e-5, 1e-8)
          << "input " << i << " at " << j;
    }
  }
}

// Document B's numbers, to the bit, whatever stands in document A; and whatever is run again.
TEST(IntervalAttention, DocumentsDoNotTouchEachOther) {
  for (const std::optional<int64_t> window :
       {std::optional<int64_t>(), std::optional<int64_t>(20)}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      at::manual_seed(5);
      const int64_t length = 400, border = 170;
      const MaskIntervals mask = CausalDocumentIntervals({0, border}, length, window);
      std::vector<at::Tensor> x = {RandomLeaf({length, 4, 32}, dtype),
                                   RandomLeaf({length, 2, 32}, dtype),
                                   RandomLeaf({length, 2, 32}, dtype)};
      const at::Tensor weights = at::randn({length, 4, 32});
      const auto run = [&](const std::vector<at::Tensor>& inputs) {
        const at::Tensor out =
            IntervalAttention(inputs[0], inputs[1], inputs[2], mask, {.scale = 0.2});
        std::vector<at::Tensor> results = Gradients(out, weights, inputs);
        results.push_back(out);
        return results;
      };
      const auto first = run(x), again = run(x);
      std::vector<at::Tensor> other;
      for (const at::Tensor& input : x) {
        at::Tensor copy = input.detach().clone();
        copy.narrow(0, 0, border).mul_(-3).add_(1);
        other.push_back(copy.requires_grad_(true));
      }
      const auto changed = run(other);
      for (size_t i = 0; i < first.size(); ++i) {
        EXPECT_TRUE(SameBits(first[i], again[i])) << i;
        EXPECT_TRUE(SameBits(first[i].narrow(0, border, length - border),
                             changed[i].narrow(0, border, length - border)))
            << i << " " << dtype;
        EXPECT_FALSE(SameBits(first[i].narrow(0, 0, border), changed[i].narrow(0, 0, border))) << i;
      }
    }
  }
}

std::vector<CpuIsa> Levels() {
  std::vector<CpuIsa> levels;
  for (int i = 0; i <= static_cast<int>(BestCpuIsa()); ++i)
    levels.push_back(static_cast<CpuIsa>(i));
  return levels;
}

// While it lives, ATen fills new tensors with not-a-number (bytes with 255, the same in fp32).
class PoisonedMemory {
 public:
  PoisonedMemory() {
    at::globalContext().setDeterministicAlgorithms(true, true);
    at::globalContext().setDeterministicFillUninitializedMemory(true);
  }
  ~PoisonedMemory() { at::globalContext().setDeterministicAlgorithms(false, false); }
};

std::vector<MaskIntervals> SweepMasks() {
  std::vector<int32_t> lo, hi;
  for (int32_t i = 0; i < 150; ++i) {  // an image of 40 tokens that sees all of itself
    lo.push_back(std::max(0, i - 99));
    hi.push_back(i >= 50 && i < 90 ? 90 : i + 1);
  }
  std::vector<int32_t> slab_lo, slab_hi;  // decoding: a row a sequence, each with a slab of a cache
  for (int32_t i = 0; i < 3; ++i) {
    slab_lo.push_back(200 * i);
    slab_hi.push_back(200 * i + 40 * i + 57);
  }
  return {CausalDocumentIntervals({0, 1, 2, 100, 229}, 300, {}),
          CausalDocumentIntervals({0, 131}, 290, 33),
          Mask(lo, hi),
          Mask(slab_lo, slab_hi),
          Mask({0, 0, 3, 3, 3}, {0, 3, 3, 3, 270}),  // rows 0, 2 and 3 are empty
          Mask(std::vector<int32_t>(70, 0), std::vector<int32_t>(70, 333))};  // cross-attention
}

// The kernel without autograd on one instruction set: out, lse and the three gradients.
std::vector<at::Tensor> RunKernel(const std::vector<at::Tensor>& x, const MaskIntervals& mask,
                                  const AttentionOptions& options, const AttentionOutput& grad,
                                  CpuIsa isa) {
  const IntervalAttentionInput input{x[0].detach(), x[1].detach(), x[2].detach(), mask, options};
  const AttentionOutput output = IntervalAttentionForwardCpu(input, isa);
  const IntervalAttentionGradients result = IntervalAttentionBackwardCpu(grad, input, output, isa);
  return {output.out_THD, output.lse_TH, result.q_THD, result.k_SHD, result.v_SHD};
}

// Every level × dtype × head width × mask, with memory poisoned, gradients through both results, a
// soft cap on every other and strides of a fused projection.
class HeadWidth : public ::testing::TestWithParam<int64_t> {};

TEST_P(HeadWidth, EqualsDenseOnEveryInstructionSet) {
  const std::vector<MaskIntervals> masks = SweepMasks();
  const std::vector<int64_t> groups = {1, 2, 4, 8};
  const int64_t width = GetParam();
  int64_t turn = width / 8;
  for (const MaskIntervals& mask : masks) {
    at::manual_seed(static_cast<uint64_t>(++turn));
    const int64_t rows = mask.lo_T.size(0), keys = 540;
    const int64_t group = groups[static_cast<size_t>(turn % 4)], key_heads = group == 8 ? 1 : 2;
    const AttentionOptions options{
        .scale = 1.3 / std::sqrt(static_cast<double>(width)),
        .soft_cap = turn % 2 == 0 ? std::optional<double>(1.7) : std::nullopt};
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      const auto wide_dtype = dtype == at::kDouble ? at::kDouble : at::kFloat;
      const at::Tensor fused =
          at::randn({keys, key_heads * (group + 2), width}, at::kDouble).to(dtype);
      const std::vector<at::Tensor> x = {
          fused.narrow(0, 0, rows).narrow(1, 2 * key_heads, group * key_heads),
          fused.narrow(1, 0, key_heads), fused.narrow(1, key_heads, key_heads)};
      std::vector<at::Tensor> wide = {WideLeaf(x[0]), WideLeaf(x[1]), WideLeaf(x[2])};
      const AttentionOutput expected = ReferenceWithLse(wide, mask, options);
      const AttentionOutput grad{.out_THD = at::randn({rows, group * key_heads, width}).to(dtype),
                                 .lse_TH = at::randn({rows, group * key_heads}).to(wide_dtype)};
      const at::Tensor empty_T1 = mask.lo_T.eq(mask.hi_T).unsqueeze(1);
      const auto expected_grads =
          torch::autograd::grad({expected.out_THD, expected.lse_TH.masked_fill(empty_T1, 0)}, wide,
                                {grad.out_THD.to(at::kDouble), grad.lse_TH.to(at::kDouble)});
      const double tolerance = dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 5e-6 : 1e-2;
      for (const CpuIsa isa : Levels()) {
        const std::string where = std::string(CpuIsaName(isa)) + " " + c10::toString(dtype) +
                                  " width " + std::to_string(width) + " turn " +
                                  std::to_string(turn);
        std::vector<at::Tensor> got;
        {
          const PoisonedMemory poisoned;
          got = RunKernel(x, mask, options, grad, isa);
        }
        EXPECT_LT(RelativeNorm(got[0], expected.out_THD), tolerance) << where;
        const at::Tensor same = got[1].eq(expected.lse_TH);  // −∞ on empty rows
        EXPECT_TRUE(at::equal(got[1].isinf(), empty_T1.expand_as(got[1]))) << where;
        const at::Tensor lse_error =
            (got[1].to(at::kDouble) - expected.lse_TH.detach()).masked_fill(same, 0).abs();
        EXPECT_LT(lse_error.max().item<double>(), dtype == at::kDouble ? 1e-12 : 1e-5) << where;
        for (size_t i = 0; i < 3; ++i) {
          EXPECT_EQ(got[i + 2].scalar_type(), dtype);
          EXPECT_LT(RelativeNorm(got[i + 2], expected_grads[i]), tolerance) << where << " " << i;
        }
        EXPECT_EQ(got[2].masked_select(empty_T1.unsqueeze(2)).abs().sum().item<double>(), 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, HeadWidth, ::testing::Values(8, 64, 72, 80, 96, 128, 256));

// Errors against fp64 on the same bf16 inputs are at most twice those of ATen's bf16 kernel.
TEST(IntervalAttention, Bf16IsAsExactAsAten) {
  for (const int64_t width : {64, 128, 256}) {
    at::manual_seed(width);
    const int64_t length = 333;
    std::vector<at::Tensor> x, wide;
    for (int i = 0; i < 3; ++i) {
      x.push_back(at::randn({length, 4, width}).to(at::kBFloat16));
      wide.push_back(WideLeaf(x.back()));
    }
    const AttentionOptions options{.scale = 1 / std::sqrt(static_cast<double>(width))};
    const MaskIntervals mask = CausalDocumentIntervals({0}, length, {});
    const at::Tensor grad = at::randn({length, 4, width}).to(at::kBFloat16);
    const AttentionOutput expected = ReferenceWithLse(wide, mask, options);
    std::vector<at::Tensor> exact = {expected.out_THD.detach()};
    for (const at::Tensor& each : Gradients(expected.out_THD, grad, wide)) exact.push_back(each);
    const auto batch = [](const at::Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };
    const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        batch(x[0]), batch(x[1]), batch(x[2]), 0, true, {}, options.scale);
    const auto [gq, gk, gv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        batch(grad), batch(x[0]), batch(x[1]), batch(x[2]), out, lse, 0, true, {}, options.scale);
    std::vector<at::Tensor> aten;
    for (const at::Tensor& each : {out, gq, gk, gv})
      aten.push_back(each.squeeze(0).transpose(0, 1));
    for (const CpuIsa isa : Levels()) {
      std::vector<at::Tensor> ours = RunKernel(x, mask, options, {grad, {}}, isa);
      ours.erase(ours.begin() + 1);
      for (size_t i = 0; i < 4; ++i) {
        const at::Tensor error = (ours[i].to(at::kDouble) - exact[i]).abs();
        const at::Tensor theirs = (aten[i].to(at::kDouble) - exact[i]).abs();
        EXPECT_LE(error.max().item<double>(), 2 * theirs.max().item<double>()) << i;
        EXPECT_LE(error.norm().item<double>(), 2 * theirs.norm().item<double>()) << i;
      }
    }
  }
}

// The same bits for one thread and several, time after time, and wherever a document stands.
TEST(IntervalAttention, BitsDependOnNeitherThreadsNorPlace) {
  const int threads = at::get_num_threads();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::manual_seed(9);
    const int64_t length = 1500, border = 37;
    const std::vector<at::Tensor> x = {at::randn({length, 4, 128}).to(dtype),
                                       at::randn({length, 2, 128}).to(dtype),
                                       at::randn({length, 2, 128}).to(dtype)};
    const at::Tensor grad = at::randn({length, 4, 128}).to(dtype);
    const auto run = [&](int64_t from, const std::vector<int32_t>& starts) {
      std::vector<at::Tensor> part;
      for (const at::Tensor& each : x) part.push_back(each.narrow(0, from, length - from));
      const MaskIntervals mask = CausalDocumentIntervals(starts, length - from, {});
      return RunKernel(part, mask, {.scale = 0.1}, {grad.narrow(0, from, length - from), {}},
                       BestCpuIsa());
    };
    at::set_num_threads(1);
    const auto alone = run(0, {0, border});
    const auto moved = run(border, {0});
    at::set_num_threads(std::max(threads, 4));
    for (int round = 0; round < 10; ++round) {
      const auto again = run(0, {0, border});
      for (size_t i = 0; i < alone.size(); ++i) EXPECT_TRUE(SameBits(alone[i], again[i])) << i;
    }
    at::set_num_threads(threads);
    for (size_t i = 0; i < alone.size(); ++i) {
      EXPECT_TRUE(SameBits(alone[i].narrow(0, border, length - border), moved[i])) << i;
    }
  }
}

TEST(IntervalAttention, RefusesWhatItCannotCompute) {
  const at::Tensor q = at::zeros({4, 4, 8}), k = at::zeros({4, 2, 8});
  const MaskIntervals good = CausalDocumentIntervals({0}, 4, {});
  const auto attend = [](const at::Tensor& q, const at::Tensor& k, const MaskIntervals& mask) {
    return IntervalAttention(q, k, k, mask, {});
  };
  EXPECT_NO_THROW(attend(q, k, good));
  EXPECT_THROW(attend(q, at::zeros({4, 3, 8}), good), c10::Error);   // heads do not divide
  EXPECT_THROW(attend(q, at::zeros({4, 2, 16}), good), c10::Error);  // widths differ
  EXPECT_THROW(attend(q, k.to(at::kDouble), good), c10::Error);      // dtypes differ
  EXPECT_THROW(attend(at::zeros({4, 4, 12}), at::zeros({4, 2, 12}), good), c10::Error);
  EXPECT_THROW(attend(at::zeros({4, 4, 264}), at::zeros({4, 2, 264}), good), c10::Error);
  EXPECT_THROW(IntervalAttention(q, k, k, good, {.scale = 1, .soft_cap = -1}), c10::Error);
  EXPECT_THROW(attend(q.to(at::kHalf), k.to(at::kHalf), good), c10::Error);
  EXPECT_THROW(attend(q, k, CausalDocumentIntervals({0}, 3, {})), c10::Error);  // a row too few
  EXPECT_THROW(attend(q, k, Mask({0, 0, 0, 0}, {1, 2, 3, 5})), c10::Error);     // beyond the keys
  EXPECT_THROW(attend(q, k, Mask({0, 1, 0, 0}, {1, 2, 3, 4})), c10::Error);     // decreasing
  EXPECT_THROW(attend(q, k, Mask({0, 3, 3, 3}, {1, 2, 3, 4})), c10::Error);     // lo above hi
}

}  // namespace
}  // namespace osler
