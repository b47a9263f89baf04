#include "kernels/gated_activation_isa.h"

#include "kernels/vector_math.h"

namespace osler {
namespace {

// Both activations are x·σ(u(x)): ½(1 + tanh v) = σ(2v).
template <typename A, GateKind kind>
struct Gate {
  static constexpr A kScale = static_cast<A>(1.5957691216057308);  // 2 √(2/π)
  static constexpr A kCubic = static_cast<A>(0.044715);

  static Vec<A> Share(Vec<A> x) {
    if constexpr (kind == GateKind::kSilu) {
      return Sigmoid(x);
    } else {
      return Sigmoid(x * (x * x * (kScale * kCubic) + kScale));
    }
  }
  // d(x·σ(u))/dx from σ(u).
  static Vec<A> Slope(Vec<A> x, Vec<A> share) {
    const Vec<A> fall = share * (1 - share);
    if constexpr (kind == GateKind::kSilu) {
      return share + x * fall;
    } else {
      return share + x * fall * (x * x * (3 * kScale * kCubic) + kScale);
    }
  }
};

template <typename T, GateKind kind>
void ForwardRow(const T* gate, const T* up, T* y, int64_t width) {
  using A = Sum<T>;
  ForEach<T>(width, [&](int64_t i, auto span) {
    const Vec<A> x = Load(gate + i, span);
    Store(y + i, Rounded<T>(x * Gate<A, kind>::Share(x)) * Load(up + i, span), span);
  });
}

template <typename T, GateKind kind>
void BackwardRow(const GatedBackward& in, int64_t row) {
  using A = Sum<T>;
  const T* grad = static_cast<const T*>(in.grad) + row * in.width;
  const T* gate = static_cast<const T*>(in.gate) + row * in.gate_stride;
  const T* up = static_cast<const T*>(in.up) + row * in.up_stride;
  T* grad_gate = static_cast<T*>(in.grad_gate) + row * in.width;
  T* grad_up = static_cast<T*>(in.grad_up) + row * in.width;
  ForEach<T>(in.width, [&](int64_t i, auto span) {
    const Vec<A> x = Load(gate + i, span), g = Load(grad + i, span);
    const Vec<A> share = Gate<A, kind>::Share(x);
    Store(grad_up + i, Rounded<T>(x * share) * g, span);
    Store(grad_gate + i, g * Load(up + i, span) * Gate<A, kind>::Slope(x, share), span);
  });
}

template <typename T>
void Forward(const GatedForward& in, int64_t from, int64_t to) {
  for (int64_t row = from; row < to; ++row) {
    const T* gate = static_cast<const T*>(in.gate) + row * in.gate_stride;
    const T* up = static_cast<const T*>(in.up) + row * in.up_stride;
    T* y = static_cast<T*>(in.y) + row * in.width;
    if (in.kind == GateKind::kGeluTanh) {
      ForwardRow<T, GateKind::kGeluTanh>(gate, up, y, in.width);
    } else {
      ForwardRow<T, GateKind::kSilu>(gate, up, y, in.width);
    }
  }
}

template <typename T>
void Backward(const GatedBackward& in, int64_t from, int64_t to) {
  for (int64_t row = from; row < to; ++row) {
    if (in.kind == GateKind::kGeluTanh) {
      BackwardRow<T, GateKind::kGeluTanh>(in, row);
    } else {
      BackwardRow<T, GateKind::kSilu>(in, row);
    }
  }
}

}  // namespace

namespace OSLER_ISA {
const GatedKernels kGatedKernels[kElements] = {{Forward<float>, Backward<float>},
                                               {Forward<double>, Backward<double>},
                                               {Forward<BFloat16>, Backward<BFloat16>}};
}  // namespace OSLER_ISA

}  // namespace osler
