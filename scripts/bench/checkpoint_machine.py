"""The machine that scripts/bench/checkpoint.py measures on: its disk's rate, and who else uses its cores."""
import mmap
import os
import pathlib
import platform
import resource
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from launch_environment import without_launcher

QUIET_CORES = 0.1
POLL_S = 0.01  # how often all sides look whether a save has ended
BLOCK = 8 << 20


def environment(threads):
    return without_launcher(OMP_NUM_THREADS=threads)


class Machine:
    """CPU seconds of everything else, and of the host's other guests, while something runs here."""

    def __enter__(self):
        self.before = self.read()
        return self

    def __exit__(self, *_):
        wall, busy, stolen, own = (b - a for a, b in zip(self.before, self.read()))
        self.others, self.stolen = max(0, (busy - own) / wall), stolen / wall

    @staticmethod
    def read():
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, softirq, steal = (int(x) for x in file.readline().split()[1:9])
        ticks = os.sysconf("SC_CLK_TCK")
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(one.ru_utime + one.ru_stime for one in usage)
        return time.monotonic(), (user + nice + system + irq + softirq) / ticks, steal / ticks, own


def wait_for_quiet(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with Machine() as machine:
            time.sleep(2)
        if machine.others < QUIET_CORES:
            return


def measure_disk(size):
    """A new file of so many bytes, synced; then one more past the page cache, where the file system can."""
    block = mmap.mmap(-1, BLOCK)  # aligned, as O_DIRECT wants it
    block[:] = os.urandom(BLOCK)
    size -= size % mmap.PAGESIZE

    def write(flags):
        begin = time.monotonic()
        fd = os.open("disk.bin", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o644)
        try:
            for offset in range(0, size, BLOCK):
                os.write(fd, memoryview(block)[:size - offset])
            copied = time.monotonic()
            os.fsync(fd)
            return copied - begin, time.monotonic() - begin
        finally:
            os.close(fd)
            os.unlink("disk.bin")

    copied, seconds = write(0)
    measured = {"copy_s": copied, "seconds": seconds, "mb_per_s": size / seconds / 1e6}
    try:
        measured["direct_mb_per_s"] = size / write(os.O_DIRECT)[1] / 1e6
    except OSError:
        measured["direct_mb_per_s"] = float("nan")
    return measured


def cpu_name():
    names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.machine()
