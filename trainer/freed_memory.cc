#include "trainer/freed_memory.h"

#include <malloc.h>

#include <cstdlib>
#include <initializer_list>

namespace osler {

void SetFreedMemory(FreedMemory policy) {
  for (const char* chosen : {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}) {
    if (std::getenv(chosen) != nullptr) return;
  }
  mallopt(M_MMAP_THRESHOLD, policy == FreedMemory::kKept ? 1 << 30 : 2 << 20);
  mallopt(M_TRIM_THRESHOLD, policy == FreedMemory::kKept ? 1 << 30 : 2 << 20);
}

}  // namespace osler
