// Elementary functions of vectors. In an unnamed namespace, for *_isa.cc files: see cpu_isa.h.
#pragma once

#include <math.h>

#include "kernels/vector.h"

namespace osler {
namespace {

// e^v to about one unit in the last place (Cephes' reduction and polynomial); below −87 it is 0,
// above 88 it is e^88.
inline Vec<float> Exp(Vec<float> v) {
  constexpr float kShift = 12582912;  // 1.5·2²³: adding it rounds to an integer in the low bits
  const Vec<float> low = Vec<float>{} - 87, high = Vec<float>{} + 88;
  const Vec<float> x = v > high ? high : v < low ? low : v;
  const Vec<float> shifted = x * 1.44269504088896341F + kShift;
  const Vec<float> n = shifted - kShift;
  const Vec<float> r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  Vec<float> p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1;
  const Int32 power = ((Int32)shifted - (Int32)(Vec<float>{} + kShift) + 127) << 23;
  return v < low ? Vec<float>{} : p * (Vec<float>)power;
}
inline Vec<double> Exp(Vec<double> v) {
  for (int i = 0; i < kLanes<double>; ++i) v[i] = exp(v[i]);
  return v;
}

// Relative error of about 2e-7 everywhere, small arguments too (Cephes).
inline Vec<float> Tanh(Vec<float> v) {
  const Vec<float> size = v < 0 ? -v : v;
  const Vec<float> large = 1 - 2 / (Exp(size * 2) + 1);
  const Vec<float> z = v * v;
  Vec<float> p = z * -5.70498872745e-3F + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  p = p * z * v + v;
  return size < 0.625F ? p : v < 0 ? -large : large;
}
inline Vec<double> Tanh(Vec<double> v) {
  for (int i = 0; i < kLanes<double>; ++i) v[i] = tanh(v[i]);
  return v;
}

// 1 / v to about one unit in the last place, without the slow division where there is an estimate
// of 14 bits.
inline Vec<float> Reciprocal(Vec<float> v) {
#if defined(__AVX512F__)
  const Vec<float> estimate = (Vec<float>)_mm512_maskz_rcp14_ps(0xffff, (__m512)v);
  return estimate * (2 - v * estimate);
#else
  return 1 / v;
#endif
}

// 1 / (1 + e^−v), with a small relative error for very negative v too.
inline Vec<float> Sigmoid(Vec<float> v) { return Reciprocal(Exp(-v) + 1); }
inline Vec<double> Sigmoid(Vec<double> v) { return 1 / (Exp(-v) + 1); }

}  // namespace
}  // namespace osler
