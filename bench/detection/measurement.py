"""One measurement: a method, a task and a seed, measured in a process of its own."""

import contextlib
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.detection.quality import Quality

_TIMED_IMAGES = 30
_WARM_UP_IMAGES = 5


@dataclass(frozen=True)
class Measurement:
    """What one method did on one task with one seed."""

    task: str
    method: str
    seed: int
    quality: Quality
    training_s: float
    """Seconds of fitting, with reading the images; for our models, seconds of the Trainer."""
    ms_per_image: float
    """Milliseconds of one core from an image file's bytes to its score, one image at a time."""
    peak_mb: float
    """Largest resident memory of any process."""
    verdict: str | None = None
    """`blessed` or `refused`; None for references, which have no gate."""
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Measurement":
        return Measurement(**{**values, "quality": Quality(**values["quality"])})


def milliseconds_per_image(score: Callable[[bytes], Any], files: Sequence[bytes]) -> float:
    """Median processor time of one call, with all threads of this process on one core, so that none waits busily."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    cores = os.sched_getaffinity(0)
    try:
        _use_cores({min(cores)})
        with threadpool_limits(1):
            times = [
                _milliseconds(score, files[index % len(files)]) for index in range(_WARM_UP_IMAGES + _TIMED_IMAGES)
            ]
    finally:
        _use_cores(cores)
    return median(times[_WARM_UP_IMAGES:])


def peak_memory_here_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _milliseconds(score: Callable[[bytes], Any], file: bytes) -> float:
    started = time.process_time()
    score(file)
    return 1000 * (time.process_time() - started)


def _use_cores(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has ended
            os.sched_setaffinity(int(thread.name), cores)
