"""Timing on the GPU: CUDA events, a cold L2, medians, a budget of seconds, and the two ceilings of the machine."""
import dataclasses
import statistics
import subprocess
import time

import torch

FLUSH_BYTES = 256 << 20
WARMUPS, REPEATS, FEWEST = 5, 30, 2


class Budget:
    """Seconds that may still be used."""

    def __init__(self, seconds):
        self._end = time.monotonic() + seconds

    @property
    def left(self):
        return self._end - time.monotonic()


@dataclasses.dataclass
class Times:
    ms: float  # median
    p20: float
    p80: float
    repeats: int

    @classmethod
    def of(cls, times):
        ordered = sorted(times)
        at = lambda share: ordered[round(share * (len(ordered) - 1))]
        return cls(statistics.median(ordered), at(0.2), at(0.8), len(ordered))


class Timer:
    """Device time of a function's launches; the L2 is filled with other data before each."""

    def __init__(self, budget):
        self.budget = budget
        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def _run(self, function, repeats):
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for n, (begin, end) in enumerate(events):
            self._flush.fill_(n % 100)
            begin.record()
            function()
            end.record()
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) for begin, end in events]

    def time(self, function, seconds=None, repeats=REPEATS):
        """Times of as many repeats as `seconds` (default: a fortieth of the budget) hold, from FEWEST to `repeats`.

        function has run before. One run that takes longer than all of `seconds` is all that there is.
        """
        seconds = self.budget.left / 40 if seconds is None else seconds
        first = self._run(function, 1)[0]
        if first > seconds * 1e3:
            return Times.of([first])
        affordable = int(seconds * 1e3 / (first + 0.1))
        self._run(function, min(WARMUPS - 1, affordable))
        return Times.of(self._run(function, max(FEWEST, min(repeats, affordable))))


def clocks():
    """Text: SM clock, power and temperature now."""
    try:
        fields = "clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
        return subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "-i", "0"],
                              capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: {error}"


def ceilings(timer, size=8192):
    """{"gemm_tflops", "copy_tbps", …}: a bf16 product of size³ on random data, and a 2 GiB copy, read + write."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.mm(a, b)
    gemm = timer.time(lambda: torch.mm(a, b, out=out), seconds=0.3)
    busy = clocks()
    del a, b, out
    source = torch.empty(2 << 30, dtype=torch.int8, device="cuda").random_(0, 100)
    target = torch.empty_like(source)
    target.copy_(source)
    copy = timer.time(lambda: target.copy_(source), seconds=0.1)
    return {"gemm_tflops": 2 * size ** 3 / gemm.ms / 1e9, "gemm_ms": gemm.ms,
            "copy_tbps": 2 * source.numel() / copy.ms / 1e9, "clocks": busy}
