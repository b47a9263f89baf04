// What a fuzz target provides. tests/fuzz/<x>_fuzz.cc defines both functions; mutate_main.cc turns
// it into the test fuzz/<x> (seeded mutations, any compiler, sanitizers welcome), and the same file
// links under libFuzzer:
//
//   clang++ -fsanitize=fuzzer,address … tests/fuzz/<x>_fuzz.cc
//
// A target takes bytes from nowhere good: it must return for every input, and what it accepts must
// be consistent (OSLER_CHECK says so by aborting).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// Returns 0. May be called millions of times in one process, from one thread.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Valid inputs to start from; at least one. Files below tests/fuzz/corpus/<x>/ come on top.
std::vector<std::string> FuzzSeeds();
