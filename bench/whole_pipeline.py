"""Compares a whole cold run with one plain script, and a cached run with the cold one."""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.comparison import Comparison
from bench.images import mnist_folder, write_synthetic_images
from bench.timing import COMMAND_LINE, seconds_of_command
from runtime.errors import DONE

_AREA = "whole pipeline"
_MAX_OF_PLAIN = 1.5
_MAX_WARM_OF_COLD = 0.2
_CONFIGURATION = "configs/mnist-dense.yaml"


@dataclass(frozen=True)
class _Extent:
    images: int
    epochs: int
    bound: float
    """Mean error that a trained model stays below, and a model that has learnt nothing exceeds."""


_FULL = _Extent(70_000, 20, 0.03)
_SMALL = _Extent(14_000, 5, 0.12)


def compare(size: str, repetitions: int) -> list[Comparison]:
    """full: MNIST, 20 epochs; small: 14,000 synthetic images, 5 epochs, so that fixed costs weigh more."""
    extent = _FULL if size == "full" else _SMALL
    with tempfile.TemporaryDirectory() as folder:
        images = mnist_folder() if size == "full" else Path(folder, "images")
        if size != "full":
            write_synthetic_images(images, extent.images, seed=0)
        rows = [_measure(images, Path(folder, f"repetition-{i}"), extent) for i in range(repetitions)]
    cold, plain, warm = zip(*rows, strict=True)
    what = f"{extent.images:,} images, dense, {extent.epochs} epochs"
    return [
        Comparison(_AREA, f"{what}, cold", "one plain script", cold, plain, _MAX_OF_PLAIN, extent.images),
        Comparison(_AREA, f"{what}, again with another threshold", "the cold run", warm, cold, _MAX_WARM_OF_COLD),
    ]


def _measure(images: Path, folder: Path, extent: _Extent) -> tuple[float, float, float]:
    """Seconds of (cold run, plain script, cached run)."""

    def run(bound: float) -> float:
        settings = {
            "root": folder,
            "data.path": images,
            "trainer.epochs": extent.epochs,
            "evaluation.max_pca_ratio": "null",
            "evaluation.thresholds": json.dumps([{"metric": "mean_error", "max": bound}]),
        }
        overrides = [f"--set={key}={value}" for key, value in settings.items()]
        return seconds_of_command([*COMMAND_LINE, "run", _CONFIGURATION, *overrides], exit_code=DONE)

    plain = [sys.executable, "-m", "bench.plain_script", images, folder / "plain", extent.epochs]
    cold = run(extent.bound)
    return cold, seconds_of_command([*map(str, plain)]), run(0.99 * extent.bound)
