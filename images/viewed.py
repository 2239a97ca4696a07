"""What an image file shows, so that the model sees the same of it in ingestion, scoring and serving."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from runtime.errors import UserError

MAX_PIXELS: Final = 100_000_000
"""Larger images are rejected unread: a small file can claim to be huge (a decompression bomb)."""
FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
"""Those that are read: Pillow knows dozens of others, some of which it hands to other programs."""
_DECODABLE_IN_GRAPH = {("PNG", "L"), ("PNG", "RGB"), ("JPEG", "L"), ("JPEG", "RGB")}
_EXIF_ORIENTATION = 0x0112
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AND_COLOUR, _PLAIN_PNG = slice(24, 26), (b"\x08\x00", b"\x08\x02")
"""Eight bits, grey or RGB: W3C's PNG specification, 11.2.1."""
_SIGNS_OF_MORE = (b"tRNS", b"eXIf", b"Raw profile type exif")
"""Of transparency or a rotation, wherever in the file."""


class UnreadableImageError(UserError):
    """The bytes are no image that can be used; the message is the reason."""


def as_viewed(content: bytes) -> bytes:
    """The bytes of an image file -> the same bytes where TensorFlow decodes them to what a viewer shows, else PNG.

    Palettes are resolved, transparency is laid over white, CMYK becomes RGB, 16 bits become 8, EXIF rotation is
    applied, and of an animation the first frame is taken.

    Raises UnreadableImageError for empty, truncated, foreign or oversized content, if that shows before the pixels.
    """
    if _is_plain_png(content):
        return content
    with opened(content) as image:
        if is_plain(image):
            return content
        png = io.BytesIO()
        Image.fromarray(to_grey_or_rgb(image)).save(png, "PNG", compress_level=1)
        return png.getvalue()


def _is_plain_png(content: bytes) -> bool:
    """Whether its bytes alone tell so: it is the most frequent kind, and Pillow takes its time."""
    if not content.startswith(_PNG_START) or content[_PNG_DEPTH_AND_COLOUR] not in _PLAIN_PNG:
        return False
    return not any(sign in content for sign in _SIGNS_OF_MORE)


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """The image, of whose pixels none is decoded yet; what goes wrong then is raised as UnreadableImageError."""
    if not content:
        raise UnreadableImageError("empty file")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImageError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS:,}")
        yield image
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image of a known format") from None
    # Pillow's decoders raise all of these for malformed content.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
    ) as error:
        raise UnreadableImageError(f"cannot be decoded: {error}") from None


def is_plain(image: Image.Image) -> bool:
    """Whether TensorFlow decodes the file to what a viewer shows."""
    if (image.format, image.mode) not in _DECODABLE_IN_GRAPH or "transparency" in image.info:
        return False
    return image.getexif().get(_EXIF_ORIENTATION, 1) == 1


def to_grey_or_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Upright pixels [H, W] or [H, W, 3]."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _to_eight_bits(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba).convert("L" if image.mode == "LA" else "RGB")
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.asarray(image)


def _to_eight_bits(wide: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """16-bit integers by their high byte, as PNG readers do; 32-bit and floating point by their own range."""
    if wide.dtype == np.uint16 or (wide.dtype.kind == "i" and wide.min() >= 0 and wide.max() < 2**16):
        return (wide.astype(np.uint16) >> 8).astype(np.uint8)
    low, high = float(wide.min()), float(wide.max())
    if not np.isfinite([low, high]).all():
        raise UnreadableImageError("holds values that are not finite")
    return np.round((wide - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8)
