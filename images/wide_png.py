"""Decodes PNG files of 16 bits and several channels, of which Pillow reads only the upper bytes."""

import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from zlib_ng import zlib_ng

from images.png import png_of_scanlines
from images.png_chunks import PNG_START, chunks_of

_CHANNELS: Final = {2: 3, 4: 2, 6: 4}
"""Colour type -> channels, of those with several."""
_PASSES: Final = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Adam7: first row and column, steps down and across (ISO/IEC 15948, section 8.2)."""


def is_wide_colour(content: bytes) -> bool:
    """Whether the file is a PNG of 16 bits and several channels."""
    return content.startswith(PNG_START) and content[24:25] == b"\x10" and content[25] in _CHANNELS


def wide_colour(content: bytes, shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """All 16 bits of a file for which `is_wide_colour` is true, of the given height and width: [H, W, C].

    The filters of PNG work on each byte of a pixel by itself. So the upper bytes of the scanlines are the scanlines of
    a file of 8 bits, and the lower bytes those of another. Raises ValueError for damaged pixel data.
    """
    channels, is_interlaced = _CHANNELS[content[25]], bool(content[28])
    data = b"".join(chunk.data for chunk in chunks_of(content) if chunk.kind == b"IDAT")
    rows = list(_rows_of_passes(*shape)) if is_interlaced else [shape]
    wanted = sum(height_px * (1 + 2 * channels * width_px) for height_px, width_px in rows)
    scanlines = np.frombuffer(zlib_ng.decompressobj().decompress(data, wanted), np.uint8)
    if len(scanlines) < wanted:
        raise ValueError("its pixel data are truncated")
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for height_px, width_px in rows:
        lines, scanlines = np.split(scanlines, [height_px * (1 + 2 * channels * width_px)])
        lines = lines.reshape(height_px, -1)
        for part, first in zip(parts, (1, 2), strict=True):
            part.append(np.hstack([lines[:, :1], lines[:, first::2]]).tobytes())
    upper, lower = (_decoded(b"".join(part), (*shape, channels), is_interlaced=is_interlaced) for part in parts)
    wide: npt.NDArray[np.uint16] = upper.astype(np.uint16) << 8 | lower
    return wide


def _rows_of_passes(height_px: int, width_px: int) -> Iterator[tuple[int, int]]:
    """(rows, pixels in a row) of each pass that has any."""
    for top, left, down, across in _PASSES:
        size = -(-(height_px - top) // down), -(-(width_px - left) // across)
        if min(size) > 0:
            yield size


def _decoded(scanlines: bytes, shape: tuple[int, int, int], *, is_interlaced: bool) -> npt.NDArray[Any]:
    content = png_of_scanlines(scanlines, shape, np.uint8, is_interlaced=is_interlaced)
    return np.asarray(Image.open(io.BytesIO(content), formats=("PNG",))).reshape(shape)
