#include "kernels/linear_cross_entropy_isa.h"

#include "kernels/vector_math.h"

namespace osler {
namespace {

constexpr int64_t kBlock =
    2048;  // values read for their maximum are still in L1 for their exponentials

enum class Cap { kNone, kTanh };

template <typename A, Cap cap>
struct Capped {
  A limit;

  Vec<A> Share(Vec<A> z) const { return cap == Cap::kNone ? z : Tanh(z * (1 / limit)); }
  Vec<A> Value(Vec<A> share) const { return cap == Cap::kNone ? share : share * limit; }
  // d value / dz
  Vec<A> Slope(Vec<A> share) const { return cap == Cap::kNone ? Vec<A>{} + 1 : 1 - share * share; }
  A operator()(A z) const { return Value(Share(Vec<A>{} + z))[0]; }
};

template <typename T>
inline Sum<T> At(const T* p) {
  return Load(p, Part{1})[0];
}

template <typename T, Cap cap>
void TermsOfRow(const CrossEntropyRows& in, int64_t row) {
  using A = Sum<T>;
  const T* z = static_cast<const T*>(in.logits) + row * in.width;
  const Capped<A, cap> capped{static_cast<A>(in.soft_cap)};
  const A lowest = -static_cast<A>(INFINITY);
  A max = lowest;
  double total = 0;
  for (int64_t from = 0; from < in.width; from += kBlock) {
    const int64_t count = in.width - from < kBlock ? in.width - from : kBlock;
    Vec<A> largest = Vec<A>{} + lowest;
    ForEach<T>(count, [&](int64_t i, auto span) {
      const Vec<A> v = Filled<A>(Load(z + from + i, span), lowest, span);
      largest = v > largest ? v : largest;
    });
    const A block_max = capped(LargestOf<A>(largest));
    if (block_max > max) {
      total *= exp(static_cast<double>(max - block_max));
      max = block_max;
    }
    Vec<A> sums[4] = {};
    ForEachOf4<T>(count, [&](int64_t i, auto span, int k) {
      const Vec<A> v = capped.Value(capped.Share(Load(z + from + i, span)));
      sums[k] += Filled<A>(Exp(v - max), 0, span);
    });
    total += static_cast<double>(SumOf4<A>(sums));
  }
  const int64_t target = in.targets[row] - in.begin;
  const bool here = in.targets[row] >= 0 && target >= 0 && target < in.width;
  static_cast<A*>(in.max)[row] = max;
  static_cast<A*>(in.sum)[row] = static_cast<A>(total);
  static_cast<A*>(in.target)[row] = here ? capped(At(z + target)) : 0;
}

template <typename T, Cap cap>
void GradientOfRow(const CrossEntropyRows& in, int64_t row) {
  using A = Sum<T>;
  T* z = static_cast<T*>(in.logits) + row * in.width;
  if (in.targets[row] < 0) {
    memset(z, 0, static_cast<size_t>(in.width) * sizeof(T));
    return;
  }
  const Capped<A, cap> capped{static_cast<A>(in.soft_cap)};
  const A max = static_cast<const A*>(in.max)[row];
  const A scale = static_cast<A>(in.gradient_scale);
  const A factor = scale / static_cast<const A*>(in.sum)[row];
  const auto gradient = [&](Vec<A> logit, A one_hot) {
    const Vec<A> share = capped.Share(logit);
    return (Exp(capped.Value(share) - max) * factor - one_hot) * capped.Slope(share);
  };
  const int64_t target = in.targets[row] - in.begin;
  const bool here = target >= 0 && target < in.width;
  const Vec<A> at_target = here ? gradient(Load(z + target, Part{1}), scale) : Vec<A>{};
  ForEach<T>(in.width,
             [&](int64_t i, auto span) { Store(z + i, gradient(Load(z + i, span), 0), span); });
  if (here) Store(z + target, at_target, Part{1});
}

template <typename T>
void Terms(const CrossEntropyRows& in, int64_t from, int64_t to) {
  for (int64_t row = from; row < to; ++row) {
    if (in.soft_cap == 0) {
      TermsOfRow<T, Cap::kNone>(in, row);
    } else {
      TermsOfRow<T, Cap::kTanh>(in, row);
    }
  }
}

template <typename T>
void Gradient(const CrossEntropyRows& in, int64_t from, int64_t to) {
  for (int64_t row = from; row < to; ++row) {
    if (in.soft_cap == 0) {
      GradientOfRow<T, Cap::kNone>(in, row);
    } else {
      GradientOfRow<T, Cap::kTanh>(in, row);
    }
  }
}

}  // namespace

namespace OSLER_ISA {
const CrossEntropyKernels kCrossEntropyKernels[kElements] = {{Terms<float>, Gradient<float>},
                                                             {Terms<double>, Gradient<double>},
                                                             {Terms<BFloat16>, Gradient<BFloat16>}};
}  // namespace OSLER_ISA

}  // namespace osler
