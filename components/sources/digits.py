"""`digits`: the 8x8 digits bundled with scikit-learn (UCI Optical Recognition of Handwritten Digits, test set)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from components.settings import DataSettings
from components.sources.plan import Reject, SourceImage, SourcePlan
from images.stored import from_pixels_of_many

_IMAGE_COUNT: Final = 1797


@dataclass(frozen=True)
class DigitsShard:
    """The first `max_images` digits, or all if None."""

    max_images: int | None

    def read(self) -> Iterator[SourceImage | Reject]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)
        for row, stored in enumerate(from_pixels_of_many(pixels[: self.max_images])):
            yield SourceImage(f"digits/{row:05d}", str(digits.target[row]), None, None, stored)


def plan_digits(settings: DataSettings) -> SourcePlan:
    """One shard, which is not loaded yet."""
    count = min(settings.max_images or _IMAGE_COUNT, _IMAGE_COUNT)
    return SourcePlan((DigitsShard(settings.max_images),), count, False, "scikit-learn digits")
