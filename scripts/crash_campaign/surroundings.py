"""What a run stands on and may lose: a small file system of its own, its right to write, the time of day."""
import pathlib
import subprocess


def can_mount():
    """Whether this user may mount a file system here (the root of a container often may not)."""
    return subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0


class SmallDisk:
    """A tmpfs of so many bytes at a directory, which is made."""

    def __init__(self, directory, size):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def resize(self, size):
        self._mount("-o", f"remount,size={size}")

    def make_writable(self, writable):
        self._mount("-o", f"remount,{'rw' if writable else 'ro'}")

    def close(self):
        subprocess.run(["umount", str(self.directory)], check=True)

    def _mount(self, *options):
        subprocess.run(["mount", *options, str(self.directory)], check=True, capture_output=True)


def build_clock_jump(directory):
    """The library to preload."""
    library = directory / "clock_jump.so"
    source = pathlib.Path(__file__).with_name("clock_jump.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def clock_jump(library, seconds, call):
    return {"LD_PRELOAD": str(library), "CLOCK_JUMP_SECONDS": str(seconds), "CLOCK_JUMP_CALL": str(call)}
