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

from images import dicom, gif, jpeg_segments, png_chunks, tiff, unsupported
from images.formats import FORMATS, MAX_PIXELS, MAX_SIDE_PX
from images.png import encode_png, encode_uncompressed
from images.reading import AS_STORED, EIGHT_BITS, Reading
from images.region_of_interest import Inside
from images.tiff_samples import samples
from images.values import PNG_AT, VALUES_START, Values, decode_values, encode_values, require_finite
from images.wide_png import is_wide_colour, wide_colour
from runtime.errors import UserError

Pixels = npt.NDArray[Any]
"""Of type uint8, uint16 or, for values without black and white of their own, float32."""

_GIVE_RANGE: Final = (
    f"set image.depth: 16 and image.range, or convert all images with the same scale to {tiff.SUPPORTED}"
)
_WHITE: Final = 2**16 - 1
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = 1
_WITH_ALPHA: Final = ("RGBA", "LA", "PA", "RGBa", "La")
"""Pillow's modes with an alpha channel."""
_PNG_SIZE: Final = slice(16, 24)
_CHANNELS: Final = {"L": 1, "RGB": 3}
"""Pillow's modes of the JPEG files that TensorFlow decodes to the same pixels."""
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
    page_count: int = 1
    """Pages of a TIFF file, of which the first is shown unless another is asked for."""
    used_bits: int = 0
    """Bits of the largest value in a file of 16 bits, at least 8; 0 for other files."""
    ends: tuple[float, float] | None = None
    """For pixels of type float32: the values of black and white that the file itself defines, if it does."""
    inside: Inside | None = None
    """The pixels [H, W] that are not fully transparent; None if none is, or if transparent pixels are white."""


class Prepared(NamedTuple):
    """An image file as a model takes it, and what it was like; the fields are those of `Shown`."""

    encoded: bytes
    page_count: int = 1
    used_bits: int = 0
    has_region: bool = False
    """Whether some of its pixels do not count."""


def shown(content: bytes, reading: Reading = EIGHT_BITS, *, page: int | None = None) -> Shown:
    """An image file's pixels as a viewer shows them, at the depth that `reading` names, if the file has it.

    Palettes are resolved, transparent pixels are blended with white, CMYK becomes RGB, the rotation in EXIF or XMP is
    applied, and only one page is kept: the number `page`, or else the first frame or page. The upper byte of 16 bits is
    what a depth of 8 shows.

    Raises UnreadableImageError for empty, truncated or oversized content, an unsupported format, and values without a
    fixed scale (signed, 32-bit or floating-point TIFF) unless the reading has a range for them.
    """
    if content.startswith(VALUES_START):
        return _of_values(_values_file(content), reading)
    if dicom.is_dicom(content):
        return _dicom(content, reading, page or 0)
    is_tiff = content.startswith(tiff.TIFF_STARTS)
    pages = tiff.pages_of(content) if is_tiff else []
    directory, tags = (0, tiff.first_page(content) if is_tiff else tiff.Page()) if page is None else pages[page]
    if not tags.has_fixed_scale and reading.reads_values:
        return _of_values(_tiff_values(content, tags), reading)._replace(page_count=max(1, len(pages)))
    with _opened(content, directory, tags) as image:
        _require_fixed_scale(tags)
        image.load()
        orientation = _orientation(image)
        pixels = _to_grey_or_rgb(image, bits=max(tags.bits) if is_tiff else 16, is_inverted=tags.white_is_zero)
        inside = _opaque(image) if reading.alpha == "roi" else None
        eight = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
        is_wide_tiff = is_tiff and set(tags.bits) == {16} and image.mode != "CMYK"
        is_wide = is_wide_colour(content) or (is_wide_tiff if is_tiff else pixels.dtype == np.uint16)
        is_planar = is_wide_tiff and tags.samples > 1 and tiff.has_separate_planes(content, tags)
        needs_all = reading.depth == 16 or is_planar or inside is not None
        if is_wide and pixels.dtype == np.uint8 and needs_all:
            pixels, opaque = _wide_colour(content, image, tags if is_tiff else None, None if is_planar else eight)
            inside = None if inside is None or opaque.all() else opaque
            eight = (pixels >> 8).astype(np.uint8)
    upright = _upright((pixels if reading.depth == 16 else eight).reshape(*pixels.shape[:2], -1), orientation)
    used_bits = 8 + int(eight.max()).bit_length() if is_wide else 0
    turned = None if inside is None else _upright(inside, orientation)
    return Shown(upright, max(1, len(pages)), used_bits, inside=turned)


def picture_of(
    content: bytes, *, page: int | None = None, ends: tuple[float, float] | None = None
) -> npt.NDArray[np.uint8]:
    """A file's pixels [H, W, C] in 8 bits, for people to look at: of more bits, the values that it uses.

    `ends` become black and white; without them, its darkest and brightest 0.1 % do. Raises UnreadableImageError like
    `shown`.
    """
    pixels = shown(content, AS_STORED, page=page).pixels
    if pixels.dtype == np.uint8:
        return pixels
    low, high = ends or np.percentile(pixels, (0.1, 99.9))
    shares = np.clip((pixels.astype(np.float64) - low) / max(high - low, 1e-12), 0.0, 1.0)
    picture: npt.NDArray[np.uint8] = np.round(255.0 * shares).astype(np.uint8)
    return picture


def page_count(content: bytes) -> int:
    """The number of images in a file: the pages of a TIFF file, without smaller copies of others, or DICOM's frames."""
    if dicom.is_dicom(content):
        with contextlib.suppress(dicom.DicomError):  # which is raised again when the first is read
            return max(1, dicom.size_of(content).frames)
    return max(1, tiff.page_count(content)) if content.startswith(tiff.TIFF_STARTS) else 1


def declared_size(content: bytes) -> tuple[int, int]:
    """(width, height) from the header. Raises UnreadableImageError if there is none, or if it is too large."""
    if content.startswith(VALUES_START):
        content = content[PNG_AT:]
    if content.startswith(png_chunks.PNG_START) and len(content) >= _PNG_SIZE.stop:  # frequent, and fast to parse
        return _png_size(content)
    if dicom.is_dicom(content):
        return _dicom_size(content)[:2]
    if content.startswith(tiff.TIFF_STARTS) and not (page := tiff.first_page(content)).has_fixed_scale:
        with contextlib.suppress(UnreadableImageError):  # Pillow does not know all kinds, but names what is wrong
            return _tiff_size(content, page)
    with _opened(content) as image:
        return image.width, image.height


def upright_size(content: bytes) -> tuple[int, int]:
    """(height, width) of what a viewer shows. Raises UnreadableImageError like `declared_size`."""
    width_px, height_px, orientation = *declared_size(content), _UPRIGHT
    if content.startswith(tiff.TIFF_STARTS):
        page = tiff.first_page(content)
        with contextlib.suppress(UnreadableImageError, ValueError):  # Pillow may or may not have turned a TIFF's size
            width_px, height_px = _tiff_size(content, page)
            orientation = tiff.values_of(content, page, tiff.ORIENTATION, _UPRIGHT)[0]
    elif png_chunks.may_be_turned(content) and not content.startswith(VALUES_START) and not dicom.is_dicom(content):
        with _opened(content) as image:
            orientation = _orientation(image)
    turns, _ = _TURNS.get(orientation, (0, False))
    return (width_px, height_px) if turns % 2 else (height_px, width_px)


def as_viewed(content: bytes, reading: Reading = EIGHT_BITS, *, page: int | None = None) -> bytes:
    """An image file's bytes, re-encoded as PNG or as values unless TensorFlow decodes them to the same pixels.

    Raises UnreadableImageError like `shown`.
    """
    own = _own_bytes(content, reading, page)
    return own if isinstance(own, bytes) else encoded_pixels(own)


def as_pixels(content: bytes, reading: Reading = EIGHT_BITS) -> Prepared:
    """The same as `as_viewed`, but faster and larger: for a model in this process."""
    own = _own_bytes(content, reading, None)
    if isinstance(own, bytes):
        return Prepared(own)
    encoded = encoded_pixels(own, is_compressed=False)
    return Prepared(encoded, own.page_count, own.used_bits, has_region=own.inside is not None)


def encoded_pixels(seen: Shown, *, is_compressed: bool = True) -> bytes:
    """The pixels as PNG, with an alpha channel if some do not count, or, of type float32, as values."""
    pixels = seen.pixels
    if pixels.dtype == np.float32:
        return encode_values(Values(pixels, seen.ends), is_compressed=is_compressed)
    if seen.inside is not None:
        alpha = seen.inside[..., np.newaxis] * pixels.dtype.type(np.iinfo(pixels.dtype).max)
        pixels = np.concatenate([pixels, alpha], axis=2)
    return next(encode_png(pixels[np.newaxis])) if is_compressed else encode_uncompressed(pixels)


def plain_jpeg_channels(content: bytes) -> int:
    """1 or 3 for a sound grey or RGB JPEG that is stored upright, 0 for any other file; decodes nothing.

    Raises UnreadableImageError like `declared_size`.
    """
    if not content.startswith(jpeg_segments.JPEG_START):
        return 0
    channels, height_px, width_px = jpeg_segments.plain_frame(content) or (0, 0, 0)
    if 0 < height_px * width_px <= MAX_PIXELS:
        return channels
    with _opened(content) as image:
        return _CHANNELS.get(image.mode, 0) if _is_plain(image, content) else 0


def _is_plain(image: Image.Image, content: bytes) -> bool:
    is_jpeg = image.format == "JPEG" and image.mode in _CHANNELS
    return is_jpeg and jpeg_segments.is_sound(content) and _orientation(image) == _UPRIGHT


def _own_bytes(content: bytes, reading: Reading, page: int | None) -> bytes | Shown:
    """The content, if TensorFlow decodes it to what it shows."""
    if png_chunks.is_plain_png(content, depth=reading.depth):
        return content
    if content.startswith(jpeg_segments.JPEG_START):
        with _opened(content) as image:
            if _is_plain(image, content):
                # Reads all coefficients, and so finds what is damaged, but computes only every eighth pixel.
                image.draft(image.mode, (1, 1))
                image.load()
                return content
    return shown(content, reading, page=page)


def _of_values(found: Values, reading: Reading) -> Shown:
    """Values as they are, for a reading with a range for them; otherwise as levels between their black and white."""
    if reading.reads_values:
        return Shown(found.values, ends=found.ends)
    if found.ends is None:
        raise UnreadableImageError(f"its values have no fixed black and white; {_GIVE_RANGE}")
    black, white = found.ends
    shares = np.clip((found.values.astype(np.float64) - black) / (white - black), 0.0, 1.0)
    levels = np.round(shares * (2**16 - 1)).astype(np.uint16)
    return Shown(levels if reading.depth == 16 else (levels >> 8).astype(np.uint8))


def _dicom(content: bytes, reading: Reading, frame: int) -> Shown:
    frames = _dicom_size(content).frames
    try:
        found = dicom.frame_of(content, frame)
    except dicom.DicomError as error:
        raise UnreadableImageError(str(error)) from None
    if isinstance(found, Values):
        return _of_values(found, reading)._replace(page_count=frames)
    is_narrow = reading.depth == 8 and found.dtype == np.uint16
    return Shown((found >> 8).astype(np.uint8) if is_narrow else found, page_count=frames)


def _dicom_size(content: bytes) -> dicom.Size:
    try:
        size = dicom.size_of(content)
    except dicom.DicomError as error:
        raise UnreadableImageError(str(error)) from None
    _require_size(size.width_px, size.height_px)
    return size


def _values_file(content: bytes) -> Values:
    try:
        declared_size(content)
        return decode_values(content)
    except (UnreadableImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's reader raises many types on malformed files
        raise UnreadableImageError(f"cannot be decoded: {error or type(error).__name__}") from None


def _tiff_values(content: bytes, page: tiff.Page) -> Values:
    """The values of a grey page without a fixed scale, in the file's own units."""
    _tiff_size(content, page)
    try:
        if page.samples != 1 or page.white_is_zero:
            raise ValueError("only grey values, of which the lowest is black, are supported")
        with np.errstate(over="ignore"):
            found = require_finite(samples(content, page).astype(np.float32))
        (orientation,) = tiff.values_of(content, page, tiff.ORIENTATION, _UPRIGHT)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's reader raises many types on malformed files
        raise UnreadableImageError(f"{page} cannot be decoded: {error or type(error).__name__}") from None
    return Values(_upright(found, orientation))


def _tiff_size(content: bytes, page: tiff.Page) -> tuple[int, int]:
    try:
        (width_px,), (height_px,) = (tiff.values_of(content, page, tag) for tag in (tiff.WIDTH, tiff.HEIGHT))
    except ValueError as error:
        raise UnreadableImageError(f"cannot be decoded: {error}") from None
    if not width_px or not height_px:
        raise UnreadableImageError("cannot be decoded: it has no pixels")
    _require_size(width_px, height_px)
    return width_px, height_px


def _wide_colour(
    content: bytes, image: Image.Image, page: tiff.Page | None, eight: Pixels | None
) -> tuple[Pixels, Inside]:
    """All 16 bits of an image of several channels, over white where it is transparent: [H, W, C].

    The second array tells which pixels [H, W] are not fully transparent. `eight`: the upper bytes as Pillow reads them;
    None where it misreads them.
    """
    wide = samples(content, page) if page else wide_colour(content, (image.height, image.width))
    if page and _orientation(image) == _UPRIGHT:  # Pillow has already turned what it has loaded
        wide = _upright(wide, tiff.values_of(content, page, tiff.ORIENTATION, _UPRIGHT)[0])
    opaque = np.ones(wide.shape[:2], bool)
    if image.mode in ("LA", "RGBA", "RGBa"):
        colour, alpha = wide[..., :-1].astype(np.float64), wide[..., -1:] / np.float64(_WHITE)
        opaque = alpha[..., 0] > 0
        wide = np.round(colour * (1.0 if image.mode == "RGBa" else alpha) + _WHITE * (1.0 - alpha))
    if eight is None:
        return np.clip(wide[..., :3], 0, _WHITE).astype(np.uint16), opaque
    # Pillow blends in 8 bits, and what a depth of 8 shows is the upper byte, to the last bit.
    base = eight.reshape(*eight.shape[:2], -1).astype(np.uint16) << 8
    return np.clip(wide[..., : base.shape[2]], base, base | 255).astype(np.uint16), opaque


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
def _opened(content: bytes, directory: int = 0, page: tiff.Page | None = None) -> Iterator[Image.Image]:
    """The image, not decoded yet; errors raised while it is open, also by decoding, become UnreadableImageError.

    Of a TIFF file it is the one in this `directory`, whose tags are `page`.
    """
    if not content:
        raise UnreadableImageError("empty file")
    try:
        yield _open(content, directory, page)
    except (UnreadableImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableImageError(_unidentified(content)) from None
    except Exception as error:  # Pillow's readers raise many types on malformed files
        raise UnreadableImageError(f"cannot be decoded: {error or type(error).__name__}") from None


def _open(content: bytes, directory: int, page: tiff.Page | None) -> Image.Image:
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
        page = page or tiff.first_page(content)
        if page.white_is_zero and max(page.bits) == 16 and page.photometric_offset:
            content = tiff.black_is_zero(content, page)
        image = _pillow(content)
        if directory:
            image.seek(directory)
            _require_size(image.width, image.height)
        return image
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
        raise UnreadableImageError(f"{page} has no fixed black and white; {_GIVE_RANGE}")


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
        return _to_sixteen_bits(np.asarray(image), image.info.get("transparency"), bits=bits, is_inverted=is_inverted)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba).convert("L" if image.mode in ("LA", "La") else "RGB")
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.asarray(image)


def _opaque(image: Image.Image) -> Inside | None:
    """The pixels [H, W] of a decoded image that are not fully transparent; None if none is."""
    if image.mode.startswith("I"):
        transparent = image.info.get("transparency")
        inside = np.asarray(image) != transparent if isinstance(transparent, int) else None
    elif image.mode in _WITH_ALPHA or "transparency" in image.info:
        inside = np.asarray(image.convert("RGBA").getchannel("A")) > 0
    else:
        inside = None
    return None if inside is None or inside.all() else inside


def _to_sixteen_bits(wide: npt.NDArray[Any], transparent: Any, *, bits: int, is_inverted: bool) -> Pixels:
    """Levels of `bits` bits, repeated to fill 16; the value `transparent` becomes white."""
    if not 8 < bits <= 16:  # Pillow found wide values where the tags, as far as they can be read, have none
        raise UnreadableImageError("cannot be decoded: its header is damaged")
    values = wide.astype(np.uint16)
    if isinstance(transparent, int):
        values = np.where(values == transparent, np.uint16(2**bits - 1), values)
    if is_inverted:
        values = np.uint16(2**bits - 1) - values
    return values if bits == 16 else values << (16 - bits) | values >> (2 * bits - 16)
