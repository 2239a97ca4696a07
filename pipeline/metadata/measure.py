"""Measures the time and memory that a component takes, to be stored with its artifacts."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from schema.artifacts import PEAK_MEMORY_PROPERTY, SECONDS_PROPERTY


def start_measuring() -> Callable[[], dict[str, float]]:
    """A function that returns, by property name, the seconds and this process's peak memory in MB from now on.

    Peak memory is omitted on systems other than Linux.
    """
    started = time.monotonic()
    measures_memory = _reset_peak_memory()

    def measure() -> dict[str, float]:
        measures = {SECONDS_PROPERTY: time.monotonic() - started}
        if measures_memory and (peak := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())):
            measures[PEAK_MEMORY_PROPERTY] = int(peak[1]) / 1024
        return measures

    return measure


def _reset_peak_memory() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)
    except OSError:
        return False
    return True
