"""Files of 32-bit values, such as those of floating-point TIFF and of DICOM, in a form that the graph decodes.

A file begins with VALUES_START, followed by the values of its own black and white (two float32, NaN if it has none) and
a PNG of [H, W] RGBA pixels, whose four bytes are a float32. All are little-endian.
"""

import io
import struct
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from images.formats import MAX_PIXELS
from images.png import encode_png, encode_uncompressed

VALUES_START: Final = b"\x89F32\r\n\x1a\n"
PNG_AT: Final = len(VALUES_START) + 8
"""Where the PNG begins."""
_NOTHING: Final = (float("nan"), float("nan"))


class Values(NamedTuple):
    """Upright values [H, W, 1], all finite; `ends` are those of black and white, if the file itself defines them."""

    values: npt.NDArray[np.float32]
    ends: tuple[float, float] | None = None


def encode_values(found: Values, *, is_compressed: bool = True) -> bytes:
    """A file that `decode_values` and the preprocessing graph decode to the same values."""
    head = VALUES_START + struct.pack("<2f", *(found.ends or _NOTHING))
    pixels = np.ascontiguousarray(found.values, "<f4").view(np.uint8).reshape(*found.values.shape[:2], 4)
    return head + (next(encode_png(pixels[np.newaxis])) if is_compressed else encode_uncompressed(pixels))


def decode_values(content: bytes) -> Values:
    """The values in a file that begins with VALUES_START. Raises ValueError for values that are not finite."""
    ends = struct.unpack_from("<2f", content, len(VALUES_START))
    with Image.open(io.BytesIO(content[PNG_AT:]), formats=("PNG",)) as image:
        if image.mode != "RGBA" or image.width * image.height > MAX_PIXELS:
            raise ValueError("it holds no values of 32 bits")
        pixels = np.asarray(image)
    values = require_finite(np.ascontiguousarray(pixels).view("<f4"))
    return Values(values, (ends[0], ends[1]) if np.isfinite(ends).all() and ends[0] != ends[1] else None)


def require_finite(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same values. Raises ValueError if there are some without a number."""
    wrong = int(np.count_nonzero(~np.isfinite(values)))
    if wrong:
        raise ValueError(f"{wrong:,} of its values are not numbers (NaN or infinite); replace them")
    return values
