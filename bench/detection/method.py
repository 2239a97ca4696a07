"""What the benchmark measures: a detector fitted to normal images."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from bench.detection.tasks import Floats


class Findings(NamedTuple):
    """For each image: a score [B], higher for stranger images, and a map [B, H, W] if the method has one."""

    scores: Floats
    maps: Floats | None


class Detector(Protocol):
    """A fitted method: pixels [B, H, W, C] in [0, 1] -> findings."""

    def __call__(self, pixels: Floats) -> Findings: ...


TrainingBatches = Callable[[], Iterator[Floats]]
"""Starts a pass over the training images: batches of pixels [B, H, W, C] in [0, 1]."""

Fit = Callable[[TrainingBatches, int], Detector]
"""Fits a method to the training images, with a seed."""
