// Preloaded: the machine's clock jumps by CLOCK_JUMP_SECONDS at the CLOCK_JUMP_CALL'th question for the time of day.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static atomic_long calls;

static long Jump(void) {
  const char* seconds = getenv("CLOCK_JUMP_SECONDS");
  const char* call = getenv("CLOCK_JUMP_CALL");
  return seconds && call && atomic_fetch_add(&calls, 1) >= atol(call) ? atol(seconds) : 0;
}

int clock_gettime(clockid_t clock, struct timespec* time) {
  static int (*real)(clockid_t, struct timespec*);
  if (!real) real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  const int result = real(clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += Jump();
  return result;
}

int gettimeofday(struct timeval* restrict time, void* restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}
