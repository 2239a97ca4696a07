"""The sizes of a model's training images, and what to say about an image of an unusual size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

_MUCH_SMALLER: Final = 0.5
"""Share of the smallest training image's height or width."""
_OTHER_SHAPE: Final = 1.1
"""Factor between aspect ratios."""


@dataclass(frozen=True, kw_only=True)
class UsualSizes:
    """Kept under `sizes` in the model's record; an aspect ratio is width over height."""

    smallest_height_px: int
    smallest_width_px: int
    lowest_aspect: float
    highest_aspect: float
    median_height_px: int = 0
    """0: of a version that did not record it."""
    median_width_px: int = 0

    @classmethod
    def of(cls, sizes: Iterable[tuple[int, int]]) -> "UsualSizes":
        """Of at least one image: (height, width) in pixels, as a viewer shows it."""
        heights, widths = zip(*sizes, strict=True)
        aspects = [width / height for height, width in zip(heights, widths, strict=True)]
        return cls(
            smallest_height_px=min(heights),
            smallest_width_px=min(widths),
            lowest_aspect=min(aspects),
            highest_aspect=max(aspects),
            median_height_px=round(median(heights)),
            median_width_px=round(median(widths)),
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "UsualSizes | None":
        """Of a model's record; None if a version without sizes wrote it."""
        return cls(**record["sizes"]) if "sizes" in record else None

    def warning(self, height_px: int, width_px: int) -> str:
        """Why the score of an image of this size may be wrong; empty if its size is usual."""
        own = f"the image has {width_px:,} x {height_px:,} pixels"
        if height_px < _MUCH_SMALLER * self.smallest_height_px or width_px < _MUCH_SMALLER * self.smallest_width_px:
            return (
                f"{own}, but training images have at least {self.smallest_width_px:,} x {self.smallest_height_px:,}: "
                "details may be missing, so the score may be too low"
            )
        aspect = width_px / height_px
        if not self.lowest_aspect / _OTHER_SHAPE <= aspect <= self.highest_aspect * _OTHER_SHAPE:
            low, high = f"{self.lowest_aspect:.3g}", f"{self.highest_aspect:.3g}"
            usual = low if low == high else f"{low} to {high}"
            return (
                f"{own}, a ratio of {aspect:.3g}, but training images have {usual}: it may be cropped or turned, so "
                "the score may be wrong"
            )
        return ""
