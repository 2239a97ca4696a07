"""What running a component takes, to be noted on the artifacts that it wrote."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from schema.artifacts import PEAK_MEMORY_PROPERTY, SECONDS_PROPERTY

_RESET_PEAK = "5"
"""See `clear_refs` in proc(5)."""


def start_measuring() -> Callable[[], dict[str, float]]:
    """A function that tells, by property name, the seconds since now and this process's peak memory in MB since now.

    The memory is left out where the system cannot tell it (anything but Linux).
    """
    started = time.monotonic()
    can_tell_memory = _reset_peak_memory()

    def measure() -> dict[str, float]:
        measures = {SECONDS_PROPERTY: time.monotonic() - started}
        if can_tell_memory and (peak := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())):
            measures[PEAK_MEMORY_PROPERTY] = int(peak[1]) / 1024
        return measures

    return measure


def _reset_peak_memory() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True
