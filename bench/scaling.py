"""Four times the images, and again: time in proportion, memory flat."""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.comparison import Comparison
from bench.images import write_made_images
from bench.timing import run_here

_COUNTS = {"small": (10_000, 40_000), "full": (70_000, 280_000, 1_120_000)}
_WARM_UP = 2_100
"""Images of a run that is not counted: the first one in a process imports what later ones find loaded."""
_MAX_OF_LINEAR = 1.1
_MAX_MEMORY = 1.1


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Each step against its predecessor, whole runs without their imports, which would soften the ratio."""
    counts = _COUNTS[size]
    measured: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for repetition in range(repetitions):
        for count in counts:
            # A process each: what one run leaves in memory would count for the next.
            with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
                process.submit(_measure, _WARM_UP, seed=0).result()
                measured[count].append(process.submit(_measure, count, seed=repetition).result())
    return [
        comparison
        for fewer, more in zip(counts, counts[1:], strict=False)
        for comparison in _step(fewer, measured[fewer], more, measured[more])
    ]


def _measure(count: int, *, seed: int) -> tuple[float, float]:
    """(wall seconds, peak MB) of a whole run on `count` made images."""
    with tempfile.TemporaryDirectory() as folder:
        write_made_images(Path(folder, "images"), count, seed=seed)
        return run_here(one_epoch_on(Path(folder, "images"), root=folder))


def one_epoch_on(images: Path, *, root: str) -> dict[str, Any]:
    """A whole run, one epoch long, whose Trainer keeps nothing in memory."""
    return {
        "name": "bench",
        "root": root,
        "data": {"source": "idx", "path": str(images)},
        "image": {"height_px": 28, "width_px": 28},
        "trainer": {"preset": "dense", "epochs": 1, "cache_mb": 0},
        # Made images are hard to compress; what is measured is the work, not the verdict.
        "evaluation": {"max_pca_ratio": None, "thresholds": [{"metric": "mean_error", "max": 0.12}]},
    }


def _step(
    fewer: int, before: list[tuple[float, float]], more: int, after: list[tuple[float, float]]
) -> list[Comparison]:
    growth = more / fewer
    what, reference = f"{more:,} images", f"{fewer:,} images"
    linear = tuple(seconds * growth for seconds, _ in before)
    return [
        Comparison(
            "scaling",
            f"{what}: time",
            f"{growth:.3g} x {reference}",
            tuple(seconds for seconds, _ in after),
            linear,
            _MAX_OF_LINEAR,
            more,
        ),
        Comparison(
            "scaling",
            f"{what}: peak memory",
            reference,
            tuple(mb for _, mb in after),
            tuple(mb for _, mb in before),
            _MAX_MEMORY,
            unit="MB",
        ),
    ]
