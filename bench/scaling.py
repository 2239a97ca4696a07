"""Scales the number of images up by four, twice: time must grow proportionally, memory must stay flat."""

import tempfile
from pathlib import Path
from typing import Any

from bench.comparison import Comparison
from bench.images import write_synthetic_images
from bench.timing import in_new_process, run_here

_COUNTS = {"small": (10_000, 40_000), "full": (70_000, 280_000, 1_120_000)}
_WARM_UP = 2_100
"""Images of an uncounted first run, which pays for the imports."""
_MAX_OF_LINEAR = 1.1
_MAX_MEMORY = 1.1


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Compare each size with the previous one. Runs exclude imports, which would flatten the ratio."""
    counts = _COUNTS[size]
    measured: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for repetition in range(repetitions):
        for count in counts:
            # A process per measurement: memory left by one run would count for the next.
            measured[count].append(in_new_process(_measure, count, repetition))
    return [
        comparison
        for fewer, more in zip(counts, counts[1:], strict=False)
        for comparison in _step(fewer, measured[fewer], more, measured[more])
    ]


def _measure(count: int, seed: int) -> tuple[float, float]:
    """(wall-clock seconds, peak MB) of a whole run on `count` synthetic images, after a warm-up."""
    for images in (_WARM_UP, count):
        with tempfile.TemporaryDirectory() as folder:
            write_synthetic_images(Path(folder, "images"), images, seed=seed)
            measured = run_here(one_epoch_on(Path(folder, "images"), root=folder))
    return measured


def one_epoch_on(images: Path, *, root: str) -> dict[str, Any]:
    """Settings of a whole run of one epoch, whose Trainer caches no images in memory."""
    return {
        "name": "bench",
        "root": root,
        "data": {"source": "idx", "path": str(images)},
        "image": {"height_px": 28, "width_px": 28},
        "trainer": {"preset": "dense", "epochs": 1, "cache_mb": 0},
        # Synthetic images are hard to compress; the benchmark measures the work, not the verdict.
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
