#include "kernels/norm_rope_isa.h"

#include "kernels/norm_math.h"

namespace osler {
namespace {

// The two halves of a head; element i of the first turns with element i of the second.
template <typename A>
struct Pair {
  Vec<A> first, second;
};

template <typename T, typename Span>
inline Pair<Sum<T>> LoadPair(const T* p, int64_t half, Span span) {
  return {Load(p, span), Load(p + half, span)};
}
template <typename T, typename Span>
inline void StorePair(T* p, int64_t half, Pair<Sum<T>> v, Span span) {
  Store(p, v.first, span);
  Store(p + half, v.second, span);
}

// Tables are fp32; models round them to the values' type before they multiply.
template <typename T, typename Span>
inline Vec<Sum<T>> LoadTable(const float* p, Span span) {
  if constexpr (sizeof(T) == sizeof(double)) {
    double row[kLanes<double>] = {};
    int count = kLanes<double>;
    if constexpr (sizeof(Span) == sizeof(Part)) count = span.count;
    for (int i = 0; i < count; ++i) row[i] = static_cast<double>(p[i]);
    return Load(row, Whole{});
  } else {
    return Rounded<T>(Load(p, span));
  }
}

// x·cos + rotate_half(x)·sin, each product rounded as models round it.
template <typename T>
inline Pair<Sum<T>> Turned(Pair<Sum<T>> v, Vec<Sum<T>> cos, Vec<Sum<T>> sin) {
  return {Rounded<T>(v.first * cos) - Rounded<T>(v.second * sin),
          Rounded<T>(v.second * cos) + Rounded<T>(v.first * sin)};
}

template <typename T>
void TurnHead(const T* x, T* y, const float* cos, const float* sin, Sum<T> direction,
              int64_t half) {
  ForEach<T>(half, [&](int64_t i, auto span) {
    StorePair(y + i, half,
              Turned<T>(LoadPair(x + i, half, span), LoadTable<T>(cos + i, span),
                        LoadTable<T>(sin + i, span) * direction),
              span);
  });
}

template <typename T, NormStyle style>
Sum<T> NormTurnHead(const T* x, T* y, const Sum<T>* gain, const float* cos, const float* sin,
                    int64_t half, double eps) {
  using A = Sum<T>;
  Vec<A> squares[4] = {};
  ForEachOf4<T>(2 * half, [&](int64_t i, auto span, int k) {
    const Vec<A> v = Load(x + i, span);
    squares[k] += v * v;
  });
  const A r = InverseRms(SumOf4<A>(squares), 2 * half, eps);
  ForEach<T>(half, [&](int64_t i, auto span) {
    const Pair<A> v = LoadPair(x + i, half, span), g = LoadPair(gain + i, half, span);
    const Pair<A> normed = {Rounded<T>(Normalised<T, style>(v.first, r) * g.first),
                            Rounded<T>(Normalised<T, style>(v.second, r) * g.second)};
    StorePair(y + i, half,
              Turned<T>(normed, LoadTable<T>(cos + i, span), LoadTable<T>(sin + i, span)), span);
  });
  return r;
}

template <typename T>
struct HeadBackward {
  const T* grad;
  const T* x;
  T* grad_x;
  const float* cos;
  const float* sin;
  const Sum<T>* gain;
  Sum<T>* grad_gain;  // or null
  Sum<T> r;
  int64_t half;
};

template <typename T, NormStyle style>
void NormTurnHeadBackward(const HeadBackward<T>& in) {
  using A = Sum<T>;
  const int64_t half = in.half;
  // The gradient of the value between the norm and the rotation.
  const auto turned_back = [&](int64_t i, auto span) {
    const Pair<A> g = LoadPair(in.grad + i, half, span);
    const Vec<A> cos = LoadTable<T>(in.cos + i, span), sin = LoadTable<T>(in.sin + i, span);
    return Pair<A>{g.first * cos + g.second * sin, g.second * cos - g.first * sin};
  };
  Vec<A> dots[2] = {};
  ForEach<T>(half, [&](int64_t i, auto span) {
    const Pair<A> d = turned_back(i, span), x = LoadPair(in.x + i, half, span),
                  w = LoadPair(in.gain + i, half, span);
    dots[0] += d.first * w.first * x.first;
    dots[1] += d.second * w.second * x.second;
  });
  const A c = PullBack(SumOf<A>(dots[0] + dots[1]), in.r, 2 * half);
  ForEach<T>(half, [&](int64_t i, auto span) {
    const Pair<A> d = turned_back(i, span), x = LoadPair(in.x + i, half, span),
                  w = LoadPair(in.gain + i, half, span);
    StorePair(
        in.grad_x + i, half,
        Pair<A>{d.first * w.first * in.r - x.first * c, d.second * w.second * in.r - x.second * c},
        span);
    if (in.grad_gain == nullptr) return;
    const Pair<A> sum = LoadPair(in.grad_gain + i, half, span);
    StorePair(in.grad_gain + i, half,
              Pair<A>{sum.first + d.first * Normalised<T, style>(x.first, in.r),
                      sum.second + d.second * Normalised<T, style>(x.second, in.r)},
              span);
  });
}

template <typename T>
void Forward(const RopeForward& in, int64_t from, int64_t to) {
  const RopeShape& s = in.shape;
  const auto* gain = static_cast<const Sum<T>*>(in.gain);
  for (int64_t t = from; t < to; ++t) {
    const float* cos = s.cos + t * s.table_stride;
    const float* sin = s.sin + t * s.table_stride;
    for (int64_t h = 0; h < s.heads; ++h) {
      const T* x =
          static_cast<const T*>(in.x) + t * in.x_layout.token_stride + h * in.x_layout.head_stride;
      T* y = static_cast<T*>(in.y) + (t * s.heads + h) * s.width;
      if (gain == nullptr) {
        TurnHead<T>(x, y, cos, sin, 1, s.width / 2);
        continue;
      }
      static_cast<Sum<T>*>(in.inverse_rms)[t * s.heads + h] =
          in.style == NormStyle::kGemma
              ? NormTurnHead<T, NormStyle::kGemma>(x, y, gain, cos, sin, s.width / 2, in.eps)
              : NormTurnHead<T, NormStyle::kPlain>(x, y, gain, cos, sin, s.width / 2, in.eps);
    }
  }
}

template <typename T>
void Backward(const RopeBackward& in, void* grad_gain, int64_t from, int64_t to) {
  const RopeShape& s = in.shape;
  for (int64_t t = from; t < to; ++t) {
    const float* cos = s.cos + t * s.table_stride;
    const float* sin = s.sin + t * s.table_stride;
    for (int64_t h = 0; h < s.heads; ++h) {
      const T* grad = static_cast<const T*>(in.grad) + t * in.grad_layout.token_stride +
                      h * in.grad_layout.head_stride;
      T* grad_x = static_cast<T*>(in.grad_x) + (t * s.heads + h) * s.width;
      if (in.gain == nullptr) {
        TurnHead<T>(grad, grad_x, cos, sin, -1, s.width / 2);
        continue;
      }
      const HeadBackward<T> head{.grad = grad,
                                 .x = static_cast<const T*>(in.x) + t * in.x_layout.token_stride +
                                      h * in.x_layout.head_stride,
                                 .grad_x = grad_x,
                                 .cos = cos,
                                 .sin = sin,
                                 .gain = static_cast<const Sum<T>*>(in.gain),
                                 .grad_gain = static_cast<Sum<T>*>(grad_gain),
                                 .r = static_cast<const Sum<T>*>(in.inverse_rms)[t * s.heads + h],
                                 .half = s.width / 2};
      if (in.style == NormStyle::kGemma) {
        NormTurnHeadBackward<T, NormStyle::kGemma>(head);
      } else {
        NormTurnHeadBackward<T, NormStyle::kPlain>(head);
      }
    }
  }
}

}  // namespace

namespace OSLER_ISA {
const RopeKernels kRopeKernels[kElements] = {{Forward<float>, Backward<float>},
                                             {Forward<double>, Backward<double>},
                                             {Forward<BFloat16>, Backward<BFloat16>}};
}  // namespace OSLER_ISA

}  // namespace osler
