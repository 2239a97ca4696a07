"""Measures the memory that is available on the machine or in the container, and returns what is free."""

import contextlib
import ctypes
from pathlib import Path

_GIB = 2**30


def available_gb(root: Path = Path("/")) -> float | None:
    """GiB available without swapping, as Linux estimates it; None if that cannot be read.

    In a container with a memory limit (control groups, version 2), what is left of the limit, if that is less.
    """
    try:
        machine = _number_after("MemAvailable:", root / "proc/meminfo") * 1024
    except (OSError, StopIteration):
        return None
    group = root / "sys/fs/cgroup"
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        reclaimable = _number_after("inactive_file", group / "memory.stat")
    except (OSError, ValueError, StopIteration):  # no container, or no limit ("max")
        return machine / _GIB
    return min(machine, limit - used + reclaimable) / _GIB


def _number_after(name: str, file: Path) -> int:
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return next(int(words[1]) for words in lines if words[:1] == [name])


def return_free_memory() -> None:
    """Give memory that this process has freed back to the system; without effect where the C library is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
