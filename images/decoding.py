"""Decides what an image file shows and whether it is readable: for ingestion, scoring, the server and the client."""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from images import gif, jpeg_segments, png_chunks, tiff, unsupported
from images.formats import FORMATS, MAX_PIXELS, MAX_SIDE_PX
from images.png import encode_png, encode_uncompressed
from runtime.errors import UserError

Pixels = npt.NDArray[np.uint8]

_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = 1
_PNG_SIZE: Final = slice(16, 24)
_TURNS: Final = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
"""EXIF's Orientation -> quarter turns counterclockwise, and whether to mirror left and right afterwards."""

# Sizes are checked here, and metadata that cannot be read are ignored.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadableImageError(UserError):
    """The bytes are not a usable image; the message is the reason."""


class Shown(NamedTuple):
    """What a viewer shows: upright pixels [H, W, C] with C of 1 or 3."""

    pixels: Pixels
    is_plain_jpeg: bool
    """Whether the file is a sound grey or RGB JPEG that is stored upright."""
    page_count: int = 1
    """Pages of a TIFF file, of which the first is shown."""


def shown(content: bytes) -> Shown:
    """An image file's pixels as a viewer shows them.

    Palettes are resolved, transparent pixels are blended with white, CMYK becomes RGB, 16 bits become 8, the rotation
    in EXIF or XMP is applied, and only the first frame or page is kept.

    Raises UnreadableImageError for empty, truncated or oversized content, an unsupported format, and values without a
    fixed scale: signed, 32-bit or floating-point TIFF.
    """
    is_tiff = content.startswith(tiff.TIFF_STARTS)
    page = tiff.first_page(content) if is_tiff else tiff.Page()
    with _opened(content) as image:
        _require_fixed_scale(page)
        image.load()
        is_jpeg = image.format == "JPEG" and image.mode in ("L", "RGB") and jpeg_segments.is_sound(content)
        orientation = _orientation(image)
        pixels = _to_grey_or_rgb(image, bits=max(page.bits) if is_tiff else 16, is_inverted=page.white_is_zero)
    upright = _upright(pixels.reshape(*pixels.shape[:2], -1), orientation)
    pages = max(1, tiff.page_count(content)) if is_tiff else 1
    return Shown(upright, is_jpeg and orientation == _UPRIGHT, pages)


def declared_size(content: bytes) -> tuple[int, int]:
    """(width, height) from the header. Raises UnreadableImageError if there is none, or if it is too large."""
    if content.startswith(png_chunks.PNG_START) and len(content) >= _PNG_SIZE.stop:  # frequent, and fast to parse
        return _png_size(content)
    with _opened(content) as image:
        return image.width, image.height


def upright_size(content: bytes) -> tuple[int, int]:
    """(height, width) of what a viewer shows. Raises UnreadableImageError like `declared_size`."""
    with _opened(content) as image:
        turns, _ = _TURNS.get(_orientation(image), (0, False))
        return (image.width, image.height) if turns % 2 else (image.height, image.width)


def as_viewed(content: bytes) -> bytes:
    """An image file's bytes, re-encoded as PNG unless TensorFlow decodes them to the same pixels.

    Raises UnreadableImageError like `shown`.
    """
    own = _own_bytes(content)
    return own if isinstance(own, bytes) else next(encode_png(own[np.newaxis]))


def as_pixels(content: bytes) -> bytes:
    """The same as `as_viewed`, but faster and larger: for a model in this process."""
    own = _own_bytes(content)
    return own if isinstance(own, bytes) else encode_uncompressed(own)


def _own_bytes(content: bytes) -> bytes | Pixels:
    """The content, if TensorFlow decodes it to what it shows; otherwise the pixels."""
    if png_chunks.is_plain_png(content):
        return content
    seen = shown(content)
    return content if seen.is_plain_jpeg else seen.pixels


def mask_levels(content: bytes) -> npt.NDArray[np.float32]:
    """A mask file's brightness [H, W] in [0, 1]: of its brightest channel; transparency is ignored.

    Raises UnreadableImageError like `shown`.
    """
    is_tiff = content.startswith(tiff.TIFF_STARTS)
    page = tiff.first_page(content) if is_tiff else tiff.Page()
    with _opened(content) as image:
        _require_fixed_scale(page)
        image.load()
        orientation = _orientation(image)
        if image.mode.startswith("I"):
            white = 2 ** (max(page.bits) if is_tiff else 16) - 1
            levels = np.asarray(image).astype(np.float32)[:, :, np.newaxis] / white
            levels = 1 - levels if page.white_is_zero else levels
        else:
            grey = image.mode in ("1", "L", "LA", "La")
            plain = image.getchannel(0) if grey else image.convert("RGBA" if image.mode == "RGBa" else "RGB")
            values = np.asarray(plain.convert("L") if grey else plain.convert("RGB"))
            levels = values.reshape(*values.shape[:2], -1).astype(np.float32) / 255
    return _upright(levels.max(axis=2, keepdims=True), orientation)[:, :, 0]


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The image, not decoded yet; errors raised while it is open, also by decoding, become UnreadableImageError."""
    if not content:
        raise UnreadableImageError("empty file")
    try:
        yield _open(content)
    except (UnreadableImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableImageError(_unidentified(content)) from None
    except Exception as error:  # Pillow's readers raise many types on malformed files
        raise UnreadableImageError(f"cannot be decoded: {error or type(error).__name__}") from None


def _open(content: bytes) -> Image.Image:
    if content.startswith(png_chunks.PNG_START):
        if len(content) >= _PNG_SIZE.stop:
            _png_size(content)
        try:
            image = _pillow(png_chunks.with_orientation(content))
            image.load()
            image.getexif()
            return image
        except Exception:  # damaged metadata, or pixels: Pillow's readers raise many types
            return _pillow(png_chunks.without_orientation(content))
    if content.startswith(gif.GIF_STARTS):
        return _pillow(gif.from_first_frame(content))
    if content.startswith(jpeg_segments.JPEG_START):
        jpeg_segments.require_moderate(content)
    if content.startswith(tiff.TIFF_STARTS):
        page = tiff.first_page(content)
        if page.white_is_zero and max(page.bits) == 16 and page.photometric_offset:
            content = tiff.black_is_zero(content, page)
    return _pillow(content)


def _png_size(content: bytes) -> tuple[int, int]:
    width_px, height_px = struct.unpack(">II", content[_PNG_SIZE])
    _require_size(width_px, height_px)
    return width_px, height_px


def _pillow(content: bytes) -> Image.Image:
    """The image, opened but not decoded. Raises UnreadableImageError if it is too large."""
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    _require_size(image.width, image.height)
    return image


def _require_fixed_scale(page: tiff.Page) -> None:
    if not page.has_fixed_scale:
        raise UnreadableImageError(
            f"{page} has no fixed black and white; convert all images with the same scale to {tiff.SUPPORTED}"
        )


def _require_size(width_px: int, height_px: int) -> None:
    if width_px * height_px > MAX_PIXELS:
        raise UnreadableImageError(f"{width_px}x{height_px} pixels, more than {MAX_PIXELS:,}")
    if max(width_px, height_px) > MAX_SIDE_PX:
        raise UnreadableImageError(f"{width_px}x{height_px} pixels; a side may have at most {MAX_SIDE_PX:,}")


def _unidentified(content: bytes) -> str:
    if content.startswith(tiff.TIFF_STARTS) and tiff.page_count(content):
        return f"{tiff.first_page(content)} is not supported; convert it to {tiff.SUPPORTED}"
    if content.startswith((png_chunks.PNG_START, jpeg_segments.JPEG_START, *gif.GIF_STARTS, *tiff.TIFF_STARTS)):
        return "cannot be decoded: its header is damaged"
    return unsupported.reason_of(content)


def _orientation(image: Image.Image) -> int:
    """EXIF's Orientation, from EXIF or XMP; 1 (upright) if they are damaged or have none."""
    try:
        value = image.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # Pillow's parser raises many types on damaged metadata, which no viewer refuses
        return _UPRIGHT
    return value if value in _TURNS else _UPRIGHT


def _upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    turns, is_mirrored = _TURNS.get(orientation, (0, False))
    turned = np.rot90(pixels, turns)
    return np.ascontiguousarray(turned[:, ::-1] if is_mirrored else turned)


def _to_grey_or_rgb(image: Image.Image, *, bits: int, is_inverted: bool) -> Pixels:
    """Pixels [H, W] or [H, W, 3] of a decoded image; `bits` and `is_inverted` describe grey values of up to 16 bits."""
    if image.mode.startswith("I"):
        return _to_eight_bits(np.asarray(image), image.info.get("transparency"), bits=bits, is_inverted=is_inverted)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba).convert("L" if image.mode in ("LA", "La") else "RGB")
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.asarray(image)


def _to_eight_bits(wide: npt.NDArray[Any], transparent: Any, *, bits: int, is_inverted: bool) -> Pixels:
    """The upper eight of `bits` bits, as in PNG readers; the value `transparent` becomes white."""
    values = wide.astype(np.uint16)
    if isinstance(transparent, int):
        values = np.where(values == transparent, np.uint16(2**bits - 1), values)
    if is_inverted:
        values = np.uint16(2**bits - 1) - values
    return (values >> (bits - 8)).astype(np.uint8)
