// Which instruction set the CPU kernels of this process use.
//
// A source kernels/*_isa.cc is compiled once a level (cmake/OslerLibrary.cmake), each time with its
// code in namespace osler::OSLER_ISA; SelectIsa picks one of the copies at run time. Such a file
// sees no torch header and keeps every helper in an unnamed namespace: an inline function that the
// linker merges with a copy from another level would crash older machines.
#pragma once

namespace osler {

// Each level includes the ones before it.
enum class CpuIsa {
  kPortable,    // what the compiler targets by default
  kAvx2,        // AVX2, FMA, F16C (Haswell, Zen)
  kAvx512,      // AVX-512 F, BW, DQ, VL (Skylake-X)
  kAvx512Bf16,  // and AVX512_BF16 (Cooper Lake, Zen 4)
  kAmx,         // and AMX tiles for bf16 (Sapphire Rapids)
};

// The highest level that this machine and its kernel allow, at most OSLER_CPU_ISA (portable, avx2,
// avx512, avx512_bf16, amx) where that is set. Found once; thread-safe.
CpuIsa BestCpuIsa();

// The name that OSLER_CPU_ISA takes.
const char* CpuIsaName(CpuIsa isa);

// One of five, by level.
template <typename T>
const T& SelectIsa(CpuIsa isa, const T& portable, const T& avx2, const T& avx512,
                   const T& avx512_bf16, const T& amx) {
  switch (isa) {
    case CpuIsa::kAmx: return amx;
    case CpuIsa::kAvx512Bf16: return avx512_bf16;
    case CpuIsa::kAvx512: return avx512;
    case CpuIsa::kAvx2: return avx2;
    case CpuIsa::kPortable: break;
  }
  return portable;
}

}  // namespace osler
