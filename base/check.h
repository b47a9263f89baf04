// OSLER_CHECK: for programmer errors only, in every build type. What the outside world can cause is
// a Status.
#pragma once

#include <cstdio>
#include <cstdlib>

// Prints the condition with its place and aborts.
#define OSLER_CHECK(condition)                                                           \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)
