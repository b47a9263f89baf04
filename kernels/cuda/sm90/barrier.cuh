// Hopper's mbarriers, named barriers and register hand-over as functions (PTX
// ISA 8.x).
#pragma once

#include <cstdint>

#include "kernels/cuda/delay.cuh"
#include "kernels/cuda/device_functions.cuh"

namespace osler::cuda::sm90 {

// An mbarrier in shared memory. Its phases alternate in parity, from 0; a wait for parity p returns
// once a phase of that parity has ended. A fresh barrier passes a wait for parity 1.
struct Mbarrier {
  uint64_t state;

  __device__ void Init(uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(&state)),
                 "r"(arrivals));
  }
  __device__ void Arrive() {
    Delay();
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(&state))
                 : "memory");
  }
  // Arrives, and lets the phase last until that many bytes have come by TMA.
  __device__ void ArriveExpecting(uint32_t bytes) {
    Delay();
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(
                     SharedAddress(&state)),
                 "r"(bytes)
                 : "memory");
  }
  __device__ void Wait(uint32_t parity) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni end;\n"
        "bra.uni again;\n"
        "end:\n}" ::"r"(SharedAddress(&state)),
        "r"(parity)
        : "memory");
    Delay();
  }
};

// Makes Init() visible to the other threads' barriers and to TMA; a block barrier must follow.
__device__ inline void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Named barriers 1 to 15; `threads` counts those that sync and those that only arrive.
__device__ inline void NamedSync(int barrier, int threads) {
  Delay();
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void NamedArrive(int barrier, int threads) {
  Delay();
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// The same value in all lanes of a warp, told to the compiler: what is computed from it then takes
// the registers and instructions that a warp shares.
__device__ inline int Uniform(int value) { return __shfl_sync(~0u, value, 0); }

// Whether it holds in any of the `threads` threads that call this with that barrier.
__device__ inline bool NamedAny(int barrier, int threads, bool value) {
  uint32_t any;
  Delay();
  asm volatile(
      "{\n.reg .pred mine, all;\n"
      "setp.ne.u32 mine, %1, 0;\n"
      "bar.red.or.pred all, %2, %3, mine;\n"
      "selp.u32 %0, 1, 0, all;\n}"
      : "=r"(any)
      : "r"(static_cast<uint32_t>(value)), "r"(barrier), "r"(threads)
      : "memory");
  return any != 0;
}

template <int kRegisters>
__device__ inline void GrowRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void ShrinkRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Where a ring of kStages buffers stands: the stage, and the parity of its barriers' phase.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void Next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace osler::cuda::sm90
