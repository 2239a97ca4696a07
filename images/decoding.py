"""Decodes image files to what a viewer shows, the same way for ingestion, scoring and serving."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from images.formats import FORMATS, MAX_PIXELS
from runtime.errors import UserError

# What Pillow's decoders raise.
_MALFORMED = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError)
_DECODABLE_IN_GRAPH = {("PNG", "L"), ("PNG", "RGB"), ("JPEG", "L"), ("JPEG", "RGB")}
_EXIF_ORIENTATION = 0x0112
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AND_COLOUR, _PLAIN_PNG = slice(24, 26), (b"\x08\x00", b"\x08\x02")
"""Eight bits per channel, grey or RGB: PNG specification, section 11.2.1."""
_TRANSPARENCY_OR_ROTATION = (b"tRNS", b"eXIf", b"Raw profile type exif")
"""Markers that may occur anywhere in the file."""


class UnreadableImageError(UserError):
    """The bytes are not a usable image; the message is the reason."""


def as_viewed(content: bytes) -> bytes:
    """An image file's bytes, re-encoded as PNG unless TensorFlow already decodes them to what a viewer shows.

    Palettes are resolved, transparent pixels are blended with white, CMYK becomes RGB, 16 bits become 8, EXIF rotation
    is applied, and only the first frame of an animation is kept.

    Raises UnreadableImageError for empty, truncated or oversized content or an unsupported format. A file that is
    returned unchanged has not been decoded, so damaged pixel data goes undetected.
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
    """Whether the bytes alone identify a plain PNG: the most frequent case, and much faster than asking Pillow."""
    if not content.startswith(_PNG_START) or content[_PNG_DEPTH_AND_COLOUR] not in _PLAIN_PNG:
        return False
    return not any(marker in content for marker in _TRANSPARENCY_OR_ROTATION)


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """The image, not decoded yet; errors raised while it is open, also by decoding, become UnreadableImageError."""
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
        raise UnreadableImageError("not an image in a supported format") from None
    except _MALFORMED as error:
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
    """16-bit integers keep their high byte, as in PNG readers; 32-bit and float images scale by their range."""
    if wide.dtype == np.uint16 or (wide.dtype.kind == "i" and wide.min() >= 0 and wide.max() < 2**16):
        return (wide.astype(np.uint16) >> 8).astype(np.uint8)
    low, high = float(wide.min()), float(wide.max())
    if not np.isfinite([low, high]).all():
        raise UnreadableImageError("contains NaN or infinite values")
    return np.round((wide - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8)
