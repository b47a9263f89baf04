// Warpgroup matrix products D[64, N] += A[64, 16] B[16, N] in fp32 of bf16 or fp16 (PTX ISA,
// wgmma).
//
// D is N / 2 values a thread: with g = lane / 4 and t = lane % 4, values 4 j + {0, 1} are row
// 16 warp + g, columns 8 j + 2 t + {0, 1}; values 4 j + {2, 3} the same columns of the
// row 8 further. A from registers is four pairs a thread in the same pattern, so that values 8 k to
// 8 k + 7 of a D are the A of columns 16 k to 16 k + 15. Operands in shared memory are panels as in
// tma.cuh.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/sm90/barrier.cuh"

namespace osler::cuda::sm90 {

inline constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;

// Of an operand whose rows are its M or N dimension and whose columns are the product's inner one:
// `panel` points to the first row's columns, a multiple of 16 within a panel.
__device__ inline uint64_t RowsOperand(const void* panel) {
  const uint64_t address = (SharedAddress(panel) & 0x3ffff) >> 4;
  constexpr uint64_t kStride = 1024 >> 4;  // from 8 rows to the next 8
  return address | uint64_t{1} << 16 | kStride << 32 | kSwizzle128;
}

// Of a B whose rows are the product's inner dimension and whose columns are N: `rows` points to the
// first of its 16 rows in the first of its panels, which are `panel_bytes` apart.
__device__ inline uint64_t ColumnsOperand(const void* rows, uint32_t panel_bytes) {
  const uint64_t address = (SharedAddress(rows) & 0x3ffff) >> 4;
  constexpr uint64_t kStride = 1024 >> 4;
  return address | uint64_t{panel_bytes >> 4} << 16 | kStride << 32 | kSwizzle128;
}

// Before the first product after ordinary writes of its registers.
__device__ inline void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kPending of the committed groups are unfinished.
template <int kPending>
__device__ inline void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving reads and writes of these registers over this line: between the
// issue of a product and the wait for it they are the tensor core's.
template <int kCount>
__device__ inline void HoldRegisters(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}
template <int kCount>
__device__ inline void HoldRegisters(uint32_t (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(values[i])::"memory");
}

// An instruction's list of registers %0, %1, … and the values bound to them.
#define OSLER_R16(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                                \
  "%" #a ",%" #b ",%" #c ",%" #d ",%" #e ",%" #f ",%" #g ",%" #h ",%" #i ",%" #j ",%" #k ",%" #l \
  ",%" #m ",%" #n ",%" #o ",%" #p
#define OSLER_R8(a, b, c, d, e, f, g, h) \
  "%" #a ",%" #b ",%" #c ",%" #d ",%" #e ",%" #f ",%" #g ",%" #h
#define OSLER_REGISTERS_16 OSLER_R16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define OSLER_REGISTERS_32 \
  OSLER_REGISTERS_16 "," OSLER_R16(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31)
#define OSLER_REGISTERS_40 OSLER_REGISTERS_32 "," OSLER_R8(32, 33, 34, 35, 36, 37, 38, 39)
#define OSLER_REGISTERS_48 \
  OSLER_REGISTERS_32 "," OSLER_R16(32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47)
#define OSLER_REGISTERS_64 \
  OSLER_REGISTERS_48 "," OSLER_R16(48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63)
#define OSLER_REGISTERS_80 \
  OSLER_REGISTERS_64 "," OSLER_R16(64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79)
#define OSLER_REGISTERS_96 \
  OSLER_REGISTERS_80 "," OSLER_R16(80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95)
#define OSLER_REGISTERS_128                                                                    \
  OSLER_REGISTERS_96                                                                           \
  "," OSLER_R16(96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110,         \
                111) "," OSLER_R16(112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, \
                                   124, 125, 126, 127)

#define OSLER_D8(d, i)                                                                        \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define OSLER_D16(d, i) OSLER_D8(d, i), OSLER_D8(d, i + 8)
#define OSLER_D32(d, i) OSLER_D16(d, i), OSLER_D16(d, i + 16)
#define OSLER_VALUES_32(d) OSLER_D32(d, 0)
#define OSLER_VALUES_40(d) OSLER_D32(d, 0), OSLER_D8(d, 32)
#define OSLER_VALUES_48(d) OSLER_D32(d, 0), OSLER_D16(d, 32)
#define OSLER_VALUES_64(d) OSLER_D32(d, 0), OSLER_D32(d, 32)
#define OSLER_VALUES_96(d) OSLER_VALUES_64(d), OSLER_D32(d, 64)
#define OSLER_VALUES_128(d) OSLER_VALUES_96(d), OSLER_D32(d, 96)

template <int N, class T>
struct Wgmma;

// r is N / 2, and r0 … r5 are the numbers that follow the values' in an instruction.
#define OSLER_WGMMA(N, r, r0, r1, r2, r3, r4, r5, T, type)                                       \
  template <>                                                                                    \
  struct Wgmma<N, T> {                                                                           \
    /* A by rows, from shared memory; B by columns (kColumnsB) or by rows. */                    \
    template <int kColumnsB>                                                                     \
    __device__ static void Shared(float (&d)[r], uint64_t a, uint64_t b, int accumulate) {       \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r2                                      \
                   ", 0;\n"                                                                      \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type               \
                   " {" OSLER_REGISTERS_##r "}, %" #r0 ", %" #r1 ", p, 1, 1, 0, %" #r3 ";\n}"    \
                   : OSLER_VALUES_##r(d)                                                         \
                   : "l"(a), "l"(b), "r"(accumulate), "n"(kColumnsB));                           \
    }                                                                                            \
    /* A from registers. */                                                                      \
    template <int kColumnsB>                                                                     \
    __device__ static void Registers(float (&d)[r], const uint32_t* a, uint64_t b,               \
                                     int accumulate) {                                           \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r5                                      \
                   ", 0;\n"                                                                      \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type               \
                   " {" OSLER_REGISTERS_##r "}, {%" #r0 ", %" #r1 ", %" #r2 ", %" #r3 "}, %" #r4 \
                                            ", p, 1, 1, %" OSLER_NEXT_##r ";\n}"                 \
                   : OSLER_VALUES_##r(d)                                                         \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate),        \
                     "n"(kColumnsB));                                                            \
    }                                                                                            \
  };
#define OSLER_NEXT_32 "38"
#define OSLER_NEXT_40 "46"
#define OSLER_NEXT_48 "54"
#define OSLER_NEXT_64 "70"
#define OSLER_NEXT_128 "134"
#define OSLER_WGMMA_BOTH(N, r, ...)                     \
  OSLER_WGMMA(N, r, __VA_ARGS__, __nv_bfloat16, "bf16") \
  OSLER_WGMMA(N, r, __VA_ARGS__, __half, "f16")

OSLER_WGMMA_BOTH(64, 32, 32, 33, 34, 35, 36, 37)
OSLER_WGMMA_BOTH(80, 40, 40, 41, 42, 43, 44, 45)
OSLER_WGMMA_BOTH(96, 48, 48, 49, 50, 51, 52, 53)
OSLER_WGMMA_BOTH(128, 64, 64, 65, 66, 67, 68, 69)
OSLER_WGMMA_BOTH(256, 128, 128, 129, 130, 131, 132, 133)

#undef OSLER_WGMMA_BOTH
#undef OSLER_WGMMA

// d[64, N] = or += a[64, kInner] b[N, kInner]ᵀ, both in shared memory as panels of a_rows and
// b_rows rows. Issues; the caller fences, commits and waits.
template <int N, int kInner, class T>
__device__ inline void MultiplyRows(float (&d)[N / 2], const char* a, int a_rows, const char* b,
                                    int b_rows, bool accumulate) {
  const uint64_t first_a = RowsOperand(a);
  const uint64_t first_b = RowsOperand(b);
#pragma unroll
  for (int k = 0; k < kInner / 16; ++k) {
    const int panel = k / 4;
    const int within = (k % 4) * 32;
    Wgmma<N, T>::template Shared<0>(d, first_a + ((panel * a_rows * 128 + within) >> 4),
                                    first_b + ((panel * b_rows * 128 + within) >> 4),
                                    accumulate || k > 0);
  }
}

// d[64, N] = or += a[64, kInner] b[kInner, N]: a from registers (kInner / 4 pairs a thread), b in
// shared memory as panels of b_rows rows.
template <int N, int kInner, class T>
__device__ inline void MultiplyColumns(float (&d)[N / 2], const uint32_t (&a)[kInner / 4],
                                       const char* b, int b_rows, bool accumulate) {
  const uint64_t first_b = ColumnsOperand(b, b_rows * 128);
#pragma unroll
  for (int k = 0; k < kInner / 16; ++k) {
    Wgmma<N, T>::template Registers<1>(d, a + 4 * k, first_b + ((k * 16 * 128) >> 4),
                                       accumulate || k > 0);
  }
}

// Two neighbours of a D, rounded, as an operand's pair.
__device__ inline uint32_t PackPair(float low, float high, __nv_bfloat16 /*type*/) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}
__device__ inline uint32_t PackPair(float low, float high, __half /*type*/) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}
__device__ inline float2 UnpackPair(uint32_t pair, __nv_bfloat16 /*type*/) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
}
__device__ inline float2 UnpackPair(uint32_t pair, __half /*type*/) {
  return __half22float2(reinterpret_cast<const __half2&>(pair));
}
// A whole D as the A of the next product.
template <class T, int kValues>
__device__ inline void PackOperand(uint32_t (&a)[kValues / 2], const float (&d)[kValues]) {
#pragma unroll
  for (int i = 0; i < kValues / 2; ++i) a[i] = PackPair(d[2 * i], d[2 * i + 1], T{});
}

}  // namespace osler::cuda::sm90
