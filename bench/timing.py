"""Wall seconds and peak memory of commands and of whole runs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
COMMAND_LINE = (sys.executable, "-c", "from pipeline.cli import main; main()")
"""`autoencoder`, of this checkout."""


class BenchmarkError(Exception):
    """Work that was to be measured failed; the message holds the end of its output."""


def seconds_of_command(command: Sequence[str], *, exit_code: int = 0) -> float:
    """Wall seconds of one command in its own process; raises BenchmarkError unless it ends with `exit_code`."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    started = time.perf_counter()
    ran = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if ran.returncode != exit_code:
        raise BenchmarkError(f"{' '.join(command)} ended with {ran.returncode}: {(ran.stdout + ran.stderr)[-2000:]}")
    return seconds


def in_turn(
    ours: Callable[[], float], reference: Callable[[], float], repetitions: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(ours, reference), measured alternately, so that what else the machine does falls on both."""
    pairs = [(ours(), reference()) for _ in range(repetitions)]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def run_here(settings: dict[str, Any]) -> tuple[float, float]:
    """Run a whole pipeline in this process, so that imports weigh once: (wall seconds, peak resident MB)."""
    from pipeline.configuration import Configuration
    from pipeline.exit_codes import DONE, REFUSED
    from pipeline.run import run

    configuration = Configuration.model_validate(settings)
    _reset_peak_memory()
    started = time.perf_counter()
    code = run(configuration, as_json=False)
    seconds = time.perf_counter() - started
    if code not in (DONE, REFUSED):
        raise BenchmarkError(f"the run in {configuration.root}/{configuration.name} ended with {code}; see its run.log")
    return seconds, _peak_memory_mb()


def _reset_peak_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM starts again from what is resident now


def _peak_memory_mb() -> float:
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kilobytes) / 1024
