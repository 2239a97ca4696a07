"""Converts an image file or pixels to what an example stores: bytes that TensorFlow decodes, and a few statistics."""

import functools
import hashlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from images.decoding import Pixels, Shown, UnreadableImageError, encoded_pixels, mask_levels, plain_jpeg_channels, shown
from images.png import encode_png, png_of_scanlines
from images.png_chunks import Scanlines, plain_scanlines
from images.reading import EIGHT_BITS, Reading

_BLOCK = 1 << 16
_EXACT = 256
"""So many squares of 8-bit values have a sum that a 32-bit float holds exactly."""
_LEVELS_PER_LEVEL = 257
"""Levels of 16 bits in one of 8."""
_WHITE_FROM = 0.5
_INTERMEDIATE = (0.05, 0.95)
_MANY_INTERMEDIATE = 0.2
"""Share of the defective pixels; JPEG's artefacts and anti-aliased edges of defects of any size are fewer."""


class StoredImage(NamedTuple):
    """What an example stores for an H x W image of 1 or 3 channels; mean and contrast are in [0, 1] units."""

    encoded: bytes
    height_px: int
    width_px: int
    channels: int
    mean_intensity: float
    contrast: float
    pixel_digest: bytes
    """128 bits of BLAKE2b (RFC 7693) over shape and pixels: the same for equal pixels, whatever the file format."""
    page_count: int = 1
    """Pages of a TIFF file, of which one is stored."""
    used_bits: int = 0
    """Bits of the largest value in a file of 16 bits, at least 8; 0 for other files."""
    has_region: bool = False
    """Whether some of its pixels do not count."""


class StoredMask(NamedTuple):
    """A PNG of [H, W]: 255 on defective pixels, 0 elsewhere."""

    encoded: bytes
    has_many_intermediate_values: bool
    """Whether many pixels are neither black nor white, so that the limit of half decides what is defective."""


def from_pixels(pixels: Pixels) -> StoredImage:
    """Pixels [H, W], [H, W, 1] or [H, W, 3] of type uint8 or uint16 -> PNG."""
    [stored] = from_pixels_of_many(pixels[np.newaxis])
    return stored


def from_pixels_of_many(images: Pixels, reading: Reading = EIGHT_BITS) -> Iterator[StoredImage]:
    """N images of one size, [N, H, W], [N, H, W, 1] or [N, H, W, 3] of type uint8 or uint16 -> N PNGs."""
    images = images.reshape(*images.shape[:3], -1)
    statistics = zip(*_means_and_contrasts(images, reading), strict=True)
    for pixels, encoded, (mean, contrast) in zip(images, encode_png(images), statistics, strict=True):
        yield _stored(encoded, pixels, mean, contrast)


def from_file_bytes(
    content: bytes, reading: Reading = EIGHT_BITS, *, page: int | None = None, roi: bytes | None = None
) -> StoredImage:
    """An image file's bytes, or one of its pages, converted like `decoding.as_viewed`, with their statistics.

    `roi`: the bytes of a mask file; pixels that are not white there become transparent. Raises UnreadableImageError
    like `decoding.shown`, for a mask that cannot be read or has another size, and if no pixel counts.
    """
    lines = plain_scanlines(content, depth=reading.depth)
    decoded = _pixels_of_plain_jpeg(content) if lines is None else _pixels_of(lines)
    seen = shown(content, reading, page=page) if decoded is None else Shown(decoded)
    if roi is not None:
        seen = _limited_to(roi, seen)
    if seen.inside is not None and not seen.inside.any():
        raise UnreadableImageError("every pixel is transparent or outside its region of interest")
    [mean], [contrast] = _means_and_contrasts(seen.pixels[np.newaxis], reading)
    is_kept = seen.inside is None and (decoded is not None or lines is not None)
    encoded = content if is_kept else encoded_pixels(seen)
    return _stored(encoded, seen.pixels, mean, contrast)._replace(
        page_count=seen.page_count, used_bits=seen.used_bits, has_region=seen.inside is not None
    )


def mask_from_file_bytes(content: bytes, *, height_px: int, width_px: int) -> StoredMask:
    """A mask file's bytes -> defective where it is brighter than half of white, in any channel.

    In a mask without such pixels, such as one of class numbers, every value but 0 is defective. Ignores transparency.
    Raises UnreadableImageError unless the content is an image of this size.
    """
    levels = _levels_of_size(content, height_px, width_px)
    is_defective = levels > _WHITE_FROM
    if not is_defective.any():
        is_defective = levels > 0
    low, high = _INTERMEDIATE
    intermediate = np.count_nonzero((levels > low) & (levels < high))
    [mask] = encode_png(is_defective[np.newaxis, :, :, np.newaxis].astype(np.uint8) * np.uint8(255))
    return StoredMask(mask, bool(intermediate > _MANY_INTERMEDIATE * np.count_nonzero(is_defective)))


def _limited_to(roi: bytes, seen: Shown) -> Shown:
    """The same image, white and transparent where the mask file is not white."""
    if seen.pixels.dtype == np.float32:
        raise UnreadableImageError("its values of 32 bits have no alpha channel to store its roi in")
    try:
        inside = _levels_of_size(roi, *seen.pixels.shape[:2]) > _WHITE_FROM
    except UnreadableImageError as error:
        raise UnreadableImageError(f"its roi: {error}") from None
    if seen.inside is not None:
        inside &= seen.inside
    white = np.iinfo(seen.pixels.dtype).max
    pixels = np.where(inside[..., np.newaxis], seen.pixels, seen.pixels.dtype.type(white))
    return seen._replace(pixels=pixels, inside=None if inside.all() else inside)


def _levels_of_size(content: bytes, height_px: int, width_px: int) -> npt.NDArray[np.float32]:
    """A mask file's brightness [H, W] in [0, 1]. Raises UnreadableImageError if it has another size."""
    levels = mask_levels(content)
    if levels.shape != (height_px, width_px):
        raise UnreadableImageError(
            f"{levels.shape[1]}x{levels.shape[0]} pixels, but the image has {width_px}x{height_px}"
        )
    return levels


def _pixels_of_plain_jpeg(content: bytes) -> Pixels | None:
    """Pixels [H, W, C] to which the preprocessing graph will decode a plain JPEG; None if it is another file.

    For a sound file they are Pillow's. A file may have damages that only Pillow repairs.
    """
    channels = plain_jpeg_channels(content)
    if not channels:
        return None
    import tensorflow as tf

    try:
        return _array_of(tf.io.decode_jpeg(content, channels=channels, dct_method="INTEGER_ACCURATE"))
    except tf.errors.InvalidArgumentError:
        return None


def _pixels_of(rows: Scanlines) -> Pixels | None:
    """Pixels [H, W, C] of type uint8; None for 16 bits.

    TensorFlow reverses the filters in half of the time that Pillow takes, and does not decompress the pixels again.
    """
    if rows.depth != 8:
        return None
    import tensorflow as tf

    uncompressed = png_of_scanlines(rows.lines, (rows.height_px, rows.width_px, rows.channels), np.uint8)
    return _array_of(tf.io.decode_png(uncompressed, channels=rows.channels))


def _array_of(tensor: Any) -> Pixels:
    """The tensor's own memory, which `numpy()` would copy."""
    return np.asarray(memoryview(tensor))


def _means_and_contrasts(images: Pixels, reading: Reading) -> tuple[list[float], list[float]]:
    """[N, H, W, C] -> N means and N standard deviations, in [0, 1] units: of the type, or of the reading's [low, high].

    For integers the sums are exact in float64, so the results are the same on every machine.
    """
    values = images.reshape(len(images), -1)
    sums, squares = np.zeros(len(images)), np.zeros(len(images))
    sum_up = _sums_of_eight_bits if images.dtype == np.uint8 else _sums_of_others
    for start in range(0, values.shape[1], _BLOCK):
        for parts in sum_up(values[:, start : start + _BLOCK]):
            sums += parts[0]
            squares += parts[1]
    means = sums / values.shape[1]
    deviations = np.sqrt(np.maximum(squares / values.shape[1] - means**2, 0.0))
    if isinstance(reading.range, tuple):
        low, high = reading.range
        unit = _LEVELS_PER_LEVEL if reading.depth == 16 and images.dtype == np.uint8 else 1
        means = np.clip((means * unit - low) / (high - low), 0.0, 1.0)
        return means.tolist(), np.minimum(deviations * unit / (high - low), 0.5).tolist()
    if images.dtype == np.float32:  # of unknown scale: compressed to [0, 1], so that changes still show
        return [0.5 + _compressed(mean) for mean in means], [_compressed(deviation) for deviation in deviations]
    white = float(np.iinfo(images.dtype).max)
    return (means / white).tolist(), (deviations / white).tolist()


def _sums_of_others(values: Pixels) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """[N, values] -> per image, the sum of its values and of their squares."""
    exact = values.astype(np.float64)
    yield exact.sum(axis=1), np.einsum("ij,ij->i", exact, exact)


def _sums_of_eight_bits(values: Pixels) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """The same as of others, in half of the time and two parts: 32-bit floats add up what they can hold exactly."""
    exact = values.astype(np.float32)
    whole = exact.shape[1] // _EXACT * _EXACT
    for part in (exact[:, :whole].reshape(len(exact), -1, _EXACT), exact[:, np.newaxis, whole:]):
        if part.size:
            squares = np.einsum("nbi,nbi->nb", part, part)
            yield np.einsum("nbi->nb", part).sum(axis=1, dtype=np.float64), squares.sum(axis=1, dtype=np.float64)


def _compressed(value: float) -> float:
    """Any float32 -> [-0.5, 0.5], linear near 0 and logarithmic beyond."""
    return 0.5 * math.asinh(value) / math.asinh(float(np.finfo(np.float32).max))


def _stored(encoded: bytes, pixels: Pixels, mean: float, contrast: float) -> StoredImage:
    height_px, width_px, channels = pixels.shape
    digest = _digest_of_shape(height_px, width_px, channels).copy()
    digest.update(pixels.data if pixels.flags.c_contiguous else np.ascontiguousarray(pixels).data)
    return StoredImage(encoded, height_px, width_px, channels, mean, contrast, digest.digest())


@functools.lru_cache(maxsize=1000)
def _digest_of_shape(height_px: int, width_px: int, channels: int) -> Any:
    return hashlib.blake2b(f"{height_px}x{width_px}x{channels}:".encode(), digest_size=16)
