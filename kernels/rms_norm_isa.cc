#include "kernels/rms_norm_isa.h"

#include "kernels/norm_math.h"

namespace osler {
namespace {

template <typename T, NormStyle style>
void ForwardRow(const NormForward& in, int64_t row) {
  using A = Sum<T>;
  const T* x = static_cast<const T*>(in.x) + row * in.width;
  const T* residual = static_cast<const T*>(in.residual);
  T* sum = static_cast<T*>(in.sum);
  T* y = static_cast<T*>(in.y) + row * in.width;
  const A* gain = static_cast<const A*>(in.gain);
  if (residual != nullptr) residual += row * in.width;
  Vec<A> squares[4] = {};
  if (sum != nullptr) {
    sum += row * in.width;
    ForEachOf4<T>(in.width, [&](int64_t i, auto span, int k) {
      const Vec<A> v = Rounded<T>(Load(x + i, span) + Load(residual + i, span));
      Store(sum + i, v, span);
      squares[k] += v * v;
    });
    x = sum;
    residual = nullptr;
  } else {
    ForEachOf4<T>(in.width, [&](int64_t i, auto span, int k) {
      const Vec<A> v = Load(x + i, span);
      squares[k] += v * v;
    });
  }
  const A r = InverseRms(SumOf4<A>(squares), in.width, in.eps);
  static_cast<A*>(in.inverse_rms)[row] = r;
  if (residual == nullptr) {
    ForEach<T>(in.width, [&](int64_t i, auto span) {
      Store(y + i, Normalised<T, style>(Load(x + i, span), r) * Load(gain + i, span), span);
    });
  } else {
    ForEach<T>(in.width, [&](int64_t i, auto span) {
      const Vec<A> v = Normalised<T, style>(Load(x + i, span), r) * Load(gain + i, span);
      Store(y + i, Rounded<T>(v) + Load(residual + i, span), span);
    });
  }
}

template <typename T, NormStyle style>
void BackwardRow(const NormBackward& in, Sum<T>* grad_gain, int64_t row) {
  using A = Sum<T>;
  const T* grad = static_cast<const T*>(in.grad) + row * in.width;
  const T* x = static_cast<const T*>(in.x) + row * in.width;
  const T* grad_sum = static_cast<const T*>(in.grad_sum);
  T* grad_x = static_cast<T*>(in.grad_x) + row * in.width;
  const A* gain = static_cast<const A*>(in.gain);
  const A r = static_cast<const A*>(in.inverse_rms)[row];
  Vec<A> dots[4] = {};
  ForEachOf4<T>(in.width, [&](int64_t i, auto span, int k) {
    dots[k] += Load(grad + i, span) * Load(gain + i, span) * Load(x + i, span);
  });
  const A c = PullBack(SumOf4<A>(dots), r, in.width);
  if (grad_sum != nullptr) grad_sum += row * in.width;
  ForEach<T>(in.width, [&](int64_t i, auto span) {
    const Vec<A> g = Load(grad + i, span), v = Load(x + i, span);
    Vec<A> back = g * Load(gain + i, span) * r - v * c;
    if (grad_sum != nullptr) back += Load(grad_sum + i, span);
    Store(grad_x + i, back, span);
    if (grad_gain == nullptr) return;
    Store(grad_gain + i, Load(grad_gain + i, span) + g * Normalised<T, style>(v, r), span);
  });
}

template <typename T>
void Forward(const NormForward& in, int64_t from, int64_t to) {
  for (int64_t row = from; row < to; ++row) {
    if (in.style == NormStyle::kGemma) {
      ForwardRow<T, NormStyle::kGemma>(in, row);
    } else {
      ForwardRow<T, NormStyle::kPlain>(in, row);
    }
  }
}

template <typename T>
void Backward(const NormBackward& in, void* grad_gain, int64_t from, int64_t to) {
  auto* gain = static_cast<Sum<T>*>(grad_gain);
  for (int64_t row = from; row < to; ++row) {
    if (in.style == NormStyle::kGemma) {
      BackwardRow<T, NormStyle::kGemma>(in, gain, row);
    } else {
      BackwardRow<T, NormStyle::kPlain>(in, gain, row);
    }
  }
}

}  // namespace

namespace OSLER_ISA {
const NormKernels kNormKernels[kElements] = {{Forward<float>, Backward<float>},
                                             {Forward<double>, Backward<double>},
                                             {Forward<BFloat16>, Backward<BFloat16>}};
}  // namespace OSLER_ISA

}  // namespace osler
