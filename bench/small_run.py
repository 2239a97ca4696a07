"""Compares a run over a few images, where fixed costs dominate, with one plain script, and its repetition with it."""

import sys
import tempfile
from pathlib import Path

from bench.comparison import Comparison
from bench.configurations import digits, folder_of, seconds_of_run
from bench.memory import memory_rows
from bench.timing import imports_mb, peaks_mb, seconds_of_command

_AREA = "small run"
_MAX_OF_PLAIN = 2.0
_MAX_CACHED_OF_COLD = 0.3
_MAX_MEMORY = 1.75


def compare(size: str, repetitions: int) -> list[Comparison]:
    """scikit-learn's digits: the whole run, the same again with every component cached, and each component's memory."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [_measure(size, Path(folder, f"repetition-{number}")) for number in range(repetitions)]
    cold, plain, cached, peaks, imports = zip(*rows, strict=True)
    return [
        Comparison(_AREA, "digits, whole", "one plain script", cold, plain, _MAX_OF_PLAIN),
        Comparison(_AREA, "digits, all cached", "the whole run", cached, cold, _MAX_CACHED_OF_COLD),
        *memory_rows(_AREA, "digits", peaks, imports, _MAX_MEMORY),
    ]


def _measure(size: str, folder: Path) -> tuple[float, float, float, dict[str, float], float]:
    """Seconds of (cold run, plain script, cached run), the cold run's peaks and the imports' in MB."""
    settings = digits(size, root=folder)
    cold = seconds_of_run(settings)
    peaks = peaks_mb(folder_of(settings))
    epochs = str(settings["trainer"]["epochs"])
    plain = seconds_of_command([sys.executable, "-m", "bench.plain_digits", str(folder / "plain"), epochs])
    return cold, plain, seconds_of_run(settings), peaks, imports_mb()
