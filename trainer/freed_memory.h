// What the C library does with large blocks of memory that were freed, for the whole process.
#pragma once

namespace osler {

// kKept: they stay for the next of their kind, without a page fault for every page: activations of
// one step are the next step's. kReturned: they go back to the system, and memory in use is memory
// taken. glibc cannot put an aligned block into a gap of its own size, so kept gaps add up: two
// blocks' worth in a backward pass under ZeRO 3, where whole gradients come and go between pieces.
enum class FreedMemory { kKept, kReturned };

// Before anything large is allocated. Does nothing where the environment already tells the C
// library (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_).
void SetFreedMemory(FreedMemory policy);

}  // namespace osler
