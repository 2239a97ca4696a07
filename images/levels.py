"""Images as a model sees them, in whole levels of its range, and files that its graph decodes to them again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from images.decoding import Pixels, encoded_pixels, shown
from images.reading import AS_STORED
from images.stored import from_pixels_of_many
from images.values import VALUES_START


@dataclass(frozen=True)
class Levels:
    """The values in files that a model sees as 0 and 1, and the depth of the files."""

    low: float = 0.0
    high: float = 255.0
    depth: int = 8
    are_values: bool = False
    """Whether the files hold 32-bit values."""

    @classmethod
    def of_model(cls, record: Mapping[str, Any], files: Sequence[bytes]) -> "Levels":
        """From a model's record; `files` are some of the encoded images that it is to see."""
        low, high = record.get("pixel_levels", (0.0, 255.0))  # older models lack it
        are_values = any(file.startswith(VALUES_START) for file in files)
        return cls(low, high, record["image"].get("depth", 8), are_values)

    def images(self, pixels: npt.NDArray[Any]) -> Pixels:
        """Pixels in [0, 1] in whole levels of the depth: uint8 or uint16."""
        dtype = np.uint8 if self.depth == 8 else np.uint16
        white = float(np.iinfo(dtype).max)
        return np.round(white * pixels).clip(0, white).astype(dtype)

    def files(self, images: Pixels) -> list[bytes]:
        """[N, H, W], [N, H, W, 1] or [N, H, W, 3] of uint8 or uint16, whose white is 1 -> files for the graph."""
        images = images.reshape(*images.shape[:3], -1)
        values = self.low + images / float(np.iinfo(images.dtype).max) * (self.high - self.low)
        if self.are_values:
            grey = values.mean(axis=3, keepdims=True).astype(np.float32)
            return [encoded_pixels(one) for one in grey]
        dtype = np.uint8 if self.depth == 8 else np.uint16
        whole = np.round(values).clip(0, np.iinfo(dtype).max).astype(dtype)
        return [stored.encoded for stored in from_pixels_of_many(whole)]

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
