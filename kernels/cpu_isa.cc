#include "kernels/cpu_isa.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace osler {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512", "avx512_bf16", "amx"};

#if defined(__x86_64__)
// Linux hands out the tile registers on request only (arch_prctl(2), ARCH_REQ_XCOMP_PERM).
bool AmxAllowed() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  const bool bf16 = (edx >> 22 & 1) != 0, tile = (edx >> 24 & 1) != 0;
  return bf16 && tile && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

CpuIsa Detect() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return CpuIsa::kPortable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return CpuIsa::kAvx2;
  }
  if (!__builtin_cpu_supports("avx512bf16")) return CpuIsa::kAvx512;
  return AmxAllowed() ? CpuIsa::kAmx : CpuIsa::kAvx512Bf16;
}
#else
CpuIsa Detect() { return CpuIsa::kPortable; }
#endif

CpuIsa Limited(CpuIsa best) {
  const char* limit = std::getenv("OSLER_CPU_ISA");
  if (limit == nullptr) return best;
  const auto* found = std::find(std::begin(kNames), std::end(kNames), std::string_view(limit));
  if (found == std::end(kNames)) return best;
  return std::min(best, static_cast<CpuIsa>(found - std::begin(kNames)));
}

}  // namespace

CpuIsa BestCpuIsa() {
  static const CpuIsa best = Limited(Detect());
  return best;
}

const char* CpuIsaName(CpuIsa isa) { return kNames[static_cast<int>(isa)]; }

}  // namespace osler
