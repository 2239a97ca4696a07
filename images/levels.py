"""Images as a model sees them, in whole levels of its range, and files that its graph decodes to them again."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from images.decoding import Pixels, Shown, encoded_pixels, shown
from images.png import encode_png
from images.reading import AS_STORED, few_levels_left
from images.region_of_interest import Inside
from images.values import VALUES_START

_VALUES_AT_A_TIME = 2**21
"""Of images that are converted together, in double precision."""


def few_levels(depth: int, used_bits: int) -> str:
    """What is lost of files of 16 bits, whose largest value has `used_bits`, and the remedy; empty if it is little."""
    left = few_levels_left(depth, used_bits)
    if not left:
        return ""
    return (
        f"the files of 16 bits use only {used_bits} of them, and image.depth 8 keeps the upper byte, so only {left} "
        f"grey levels are left; set image.depth: 16 and image.range: [0, {2**used_bits - 1}]"
    )


@dataclass(frozen=True)
class Levels:
    """The values in files that a model sees as 0 and 1, and the depth of the files."""

    low: float = 0.0
    high: float = 255.0
    depth: int = 8
    are_values: bool = False
    """Whether the files hold 32-bit values."""
    has_alpha: bool = False
    """Whether transparent pixels do not count."""

    @classmethod
    def of_model(cls, record: Mapping[str, Any], files: Sequence[bytes]) -> "Levels":
        """From a model's record; `files` are some of the encoded images that it is to see."""
        low, high = record.get("pixel_levels", (0.0, 255.0))  # older models lack it
        are_values = any(file.startswith(VALUES_START) for file in files)
        has_alpha = record["image"].get("alpha") == "roi"
        return cls(low, high, record["image"].get("depth", 8), are_values, has_alpha)

    def images(self, pixels: npt.NDArray[Any]) -> Pixels:
        """Pixels in [0, 1] in whole levels of the depth: uint8 or uint16."""
        dtype = np.uint8 if self.depth == 8 else np.uint16
        white = float(np.iinfo(dtype).max)
        return np.round(white * pixels).clip(0, white).astype(dtype)

    def files(self, images: Pixels, inside: Inside | None = None) -> list[bytes]:
        """[N, H, W], [N, H, W, 1] or [N, H, W, 3] of uint8 or uint16, whose white is 1 -> files for the graph.

        Pixels that are not `inside` [N, H, W] become transparent, if that is how the model knows what counts.
        """
        images = images.reshape(*images.shape[:3], -1)
        at_a_time = max(1, _VALUES_AT_A_TIME // math.prod(images.shape[1:]))
        parts = (slice(start, start + at_a_time) for start in range(0, len(images), at_a_time))
        return [file for part in parts for file in self._files(images[part], None if inside is None else inside[part])]

    def _files(self, images: Pixels, inside: Inside | None) -> Iterable[bytes]:
        values = self.low + images / float(np.iinfo(images.dtype).max) * (self.high - self.low)
        if self.are_values:
            grey = values.mean(axis=3, keepdims=True).astype(np.float32)
            return [encoded_pixels(Shown(one)) for one in grey]
        dtype = np.uint8 if self.depth == 8 else np.uint16
        whole = np.round(values).clip(0, np.iinfo(dtype).max).astype(dtype)
        if self.has_alpha and inside is not None:
            return [encoded_pixels(Shown(one, inside=own)) for one, own in zip(whole, inside, strict=True)]
        return encode_png(whole)

    def pixels(self, file: bytes) -> npt.NDArray[np.float32]:
        """A file's pixels [H, W, C] in [0, 1], in its own size and channels."""
        own = shown(file, AS_STORED).pixels
        values = own.astype(np.float64)
        if self.depth == 8:
            values = values if own.dtype == np.uint8 else np.floor(values / 256.0)
        elif own.dtype == np.uint8:
            values = values * 257.0
        shares: npt.NDArray[np.float32] = ((values - self.low) / (self.high - self.low)).clip(0, 1).astype(np.float32)
        return shares


EIGHT_BIT_LEVELS = Levels()
