"""Scales the number of images up by four, twice: time must grow proportionally, memory must stay flat."""

import tempfile
from pathlib import Path

from bench.comparison import Comparison
from bench.configurations import Settings, dense_on
from bench.images import write_synthetic_images
from bench.timing import in_new_process, run_here

_COUNTS = {"tiny": (1_400, 2_800), "small": (10_000, 40_000), "full": (70_000, 280_000, 1_120_000)}
_WARM_UP = 2_100
"""Images of an uncounted first run, which pays for the imports; in `tiny`, whose ratios say nothing, there is none."""
_BATCH, _BATCH_OF_FEW, _FEW = 128, 8, 4_000
"""A single epoch of few images needs small batches to learn anything."""
_MAX_OF_LINEAR = 1.1
_MAX_MEMORY = 1.1


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Compare each size with the previous one. Runs exclude imports, which would flatten the ratio."""
    counts = _COUNTS[size]
    measured: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for repetition in range(repetitions):
        for count in counts:
            # A process per measurement: memory left by one run would count for the next.
            extents = (count,) if size == "tiny" else (min(_WARM_UP, count), count)
            measured[count].append(in_new_process(_measure, extents, repetition))
    return [
        comparison
        for fewer, more in zip(counts, counts[1:], strict=False)
        for comparison in _step(fewer, measured[fewer], more, measured[more])
    ]


def _measure(extents: tuple[int, ...], seed: int) -> tuple[float, float]:
    """(wall-clock seconds, peak MB) of the last of whole runs on so many synthetic images."""
    for images in extents:
        with tempfile.TemporaryDirectory() as folder:
            write_synthetic_images(Path(folder, "images"), images, seed=seed)
            measured = run_here(one_epoch_on(Path(folder, "images"), root=folder, count=images))
    return measured


def one_epoch_on(images: Path, *, root: str, count: int) -> Settings:
    """Settings of a whole run of one epoch on `count` images, whose Trainer caches none in memory."""
    batch_size = _BATCH if count >= _FEW else _BATCH_OF_FEW
    return dense_on(images, root=root, epochs=1, batch_size=batch_size, cache_mb=0)


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
