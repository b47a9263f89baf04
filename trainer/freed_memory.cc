#include "trainer/freed_memory.h"

#include <malloc.h>

namespace osler {

void SetFreedMemory(FreedMemory policy) {
  mallopt(M_MMAP_THRESHOLD, policy == FreedMemory::kKept ? 1 << 30 : 2 << 20);
  mallopt(M_TRIM_THRESHOLD, policy == FreedMemory::kKept ? 1 << 30 : 2 << 20);
}

}  // namespace osler
