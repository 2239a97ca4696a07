"""Compares a run over a few images, where fixed costs dominate, with one plain script, and its repetition with it."""

import sys
import tempfile
from pathlib import Path

from bench.comparison import Comparison
from bench.configurations import digits, seconds_of_run
from bench.timing import seconds_of_command

_AREA = "small run"
_MAX_OF_PLAIN = 2.0
_MAX_CACHED_OF_COLD = 0.3


def compare(size: str, repetitions: int) -> list[Comparison]:
    """scikit-learn's digits: the whole run, and the same again with every component cached."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [_measure(size, Path(folder, f"repetition-{number}")) for number in range(repetitions)]
    cold, plain, cached = zip(*rows, strict=True)
    return [
        Comparison(_AREA, "digits, whole", "one plain script", cold, plain, _MAX_OF_PLAIN),
        Comparison(_AREA, "digits, all cached", "the whole run", cached, cold, _MAX_CACHED_OF_COLD),
    ]


def _measure(size: str, folder: Path) -> tuple[float, float, float]:
    """Seconds of (cold run, plain script, cached run)."""
    settings = digits(size, root=folder)
    cold = seconds_of_run(settings)
    epochs = str(settings["trainer"]["epochs"])
    plain = seconds_of_command([sys.executable, "-m", "bench.plain_digits", str(folder / "plain"), epochs])
    return cold, plain, seconds_of_run(settings)
