"""Compares a whole cold run with one plain script, a cached run with the cold one, and memory with the imports'."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.comparison import Comparison
from bench.configurations import OPEN_GATE, dense_on, folder_of, seconds_of_run
from bench.images import mnist_folder, write_synthetic_images
from bench.memory import memory_rows
from bench.timing import imports_mb, peaks_mb, seconds_of_command

_AREA = "whole pipeline"
_MAX_OF_PLAIN = 1.5
_MAX_WARM_OF_COLD = 0.2
_MAX_MEMORY = 2.2
"""The pixels of 70,000 images take 0.3 of what the imports take."""
_BOUNDS = (0.02, 0.021)
"""Explained variances that every trained model exceeds; two, so that the second run has another threshold."""


@dataclass(frozen=True)
class _Extent:
    images: int
    epochs: int


_EXTENTS = {"tiny": _Extent(2_800, 20), "small": _Extent(14_000, 5), "full": _Extent(70_000, 20)}


def compare(size: str, repetitions: int) -> list[Comparison]:
    """full: MNIST; otherwise fewer synthetic images and epochs, so that fixed costs weigh more."""
    extent = _EXTENTS[size]
    with tempfile.TemporaryDirectory() as folder:
        images = mnist_folder() if size == "full" else Path(folder, "images")
        if size != "full":
            write_synthetic_images(images, extent.images, seed=0)
        rows = [_measure(images, Path(folder, f"repetition-{i}"), extent) for i in range(repetitions)]
    cold, plain, warm, peaks, imports = zip(*rows, strict=True)
    what = f"{extent.images:,} images, dense, {extent.epochs} epochs"
    return [
        Comparison(_AREA, f"{what}, cold", "one plain script", cold, plain, _MAX_OF_PLAIN, extent.images),
        Comparison(_AREA, f"{what}, again with another threshold", "the cold run", warm, cold, _MAX_WARM_OF_COLD),
        *memory_rows(_AREA, f"{extent.images:,} images", peaks, imports, _MAX_MEMORY),
    ]


def _measure(images: Path, folder: Path, extent: _Extent) -> tuple[float, float, float, dict[str, float], float]:
    """Seconds of (cold run, plain script, cached run), the cold run's peaks and the imports' in MB."""
    settings = dense_on(images, root=folder, epochs=extent.epochs)

    def run(bound: float) -> float:
        bounds = [{"metric": "explained_variance", "min": bound}]
        return seconds_of_run({**settings, "evaluation": {**OPEN_GATE, "thresholds": bounds}})

    plain = [sys.executable, "-m", "bench.plain_script", images, folder / "plain", extent.epochs]
    cold = run(_BOUNDS[0])
    peaks = peaks_mb(folder_of(settings))
    return cold, seconds_of_command([*map(str, plain)]), run(_BOUNDS[1]), peaks, imports_mb()
