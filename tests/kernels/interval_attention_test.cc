#include "kernels/interval_attention.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "tests/kernels/testing.h"

namespace osler {
namespace {

using testing::Difference;
using testing::Gradients;
using testing::RandomLeaf;
using testing::RelativeNorm;
using testing::SameBits;
using testing::WideLeaf;

// The whole S×T score matrix with ordinary operations: what the kernel must equal.
at::Tensor Reference(const at::Tensor& q_THD, const at::Tensor& k_SHD, const at::Tensor& v_SHD,
                     const MaskIntervals& mask, double scale) {
  const int64_t group = q_THD.size(1) / k_SHD.size(1);
  const at::Tensor k = k_SHD.repeat_interleave(group, 1), v = v_SHD.repeat_interleave(group, 1);
  const at::Tensor scores_HTS = at::einsum("thd,shd->hts", {q_THD, k}) * scale;
  const at::Tensor keys = at::arange(k.size(0)).unsqueeze(0);
  const at::Tensor seen_TS =
      (keys >= mask.lo_T.unsqueeze(1)).logical_and(keys < mask.hi_T.unsqueeze(1));
  // An empty row gets an ordinary softmax here and is zeroed after: softmax of −∞ alone is not a
  // number.
  const at::Tensor empty_T1 = mask.lo_T.eq(mask.hi_T).unsqueeze(1);
  const at::Tensor hidden_TS = seen_TS.logical_not().logical_and(empty_T1.logical_not());
  const at::Tensor p_HTS =
      scores_HTS.masked_fill(hidden_TS, -std::numeric_limits<double>::infinity()).softmax(-1);
  return at::einsum("hts,shd->thd", {p_HTS, v}).masked_fill(empty_T1.unsqueeze(2), 0);
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
  EXPECT_THROW(attend(q.to(at::kHalf), k.to(at::kHalf), good), c10::Error);
  EXPECT_THROW(attend(q, k, CausalDocumentIntervals({0}, 3, {})), c10::Error);  // a row too few
  EXPECT_THROW(attend(q, k, Mask({0, 0, 0, 0}, {1, 2, 3, 5})), c10::Error);     // beyond the keys
  EXPECT_THROW(attend(q, k, Mask({0, 1, 0, 0}, {1, 2, 3, 4})), c10::Error);     // decreasing
  EXPECT_THROW(attend(q, k, Mask({0, 3, 3, 3}, {1, 2, 3, 4})), c10::Error);     // lo above hi
  EXPECT_THROW(CausalDocumentIntervals({1}, 4, {}), c10::Error);
  EXPECT_THROW(CausalDocumentIntervals({0, 2, 2}, 4, {}), c10::Error);
  EXPECT_THROW(CausalDocumentIntervals({0, 4}, 4, {}), c10::Error);
  EXPECT_THROW(CausalDocumentIntervals({0}, 4, 0), c10::Error);
}

TEST(CausalDocumentIntervals, FollowsDocumentsAndWindow) {
  const MaskIntervals mask = CausalDocumentIntervals({0, 3}, 7, 2);
  EXPECT_TRUE(at::equal(mask.lo_T, at::tensor({0, 0, 1, 3, 3, 4, 5}, at::kInt)));
  EXPECT_TRUE(at::equal(mask.hi_T, at::tensor({1, 2, 3, 4, 5, 6, 7}, at::kInt)));
}

}  // namespace
}  // namespace osler
