// The tensor memory accelerator: tiles of a packed [tokens, heads, width] tensor to shared memory.
//
// A tile is kRows tokens of one head, kept as panels of 64 elements: panel p holds columns
// [64 p, 64 p + 64), a row of 128 bytes a token, swizzled by 128 bytes. Panels follow each other.
// Tokens and columns past the tensor's end are read as zero and not written.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/sm90/barrier.cuh"

namespace osler::cuda::sm90 {

inline constexpr int kPanelWidth = 64;  // elements, 128 bytes

// Of one panel of `tile_rows` tokens; false when the driver refuses (an unaligned tensor, say).
bool MakeTensorMap(CUtensorMap* map, const Rows& rows, int tokens, int heads, int width,
                   int tile_rows, Element element);

// One panel; `full` is told of its bytes (tile_rows · 128, also where some lie outside).
__device__ inline void LoadPanel(void* to, const CUtensorMap* map, Mbarrier* full, int column,
                                 int token, int head) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(SharedAddress(to)),
      "l"(map), "r"(SharedAddress(&full->state)), "r"(column), "r"(token), "r"(head)
      : "memory");
}

// A whole tile of kWidth columns and kRows rows.
template <int kWidth, int kRows>
__device__ inline void LoadTile(void* to, const CUtensorMap* map, Mbarrier* full, int token,
                                int head) {
#pragma unroll
  for (int panel = 0; panel < kWidth / kPanelWidth; ++panel) {
    LoadPanel(static_cast<char*>(to) + panel * kRows * 128, map, full, panel * kPanelWidth, token,
              head);
  }
}

}  // namespace osler::cuda::sm90
