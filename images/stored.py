"""Converts an image file or pixels to what an example stores: bytes that TensorFlow decodes, and a few statistics."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ImageOps

from images.decoding import UnreadableImageError, is_plain, opened, to_grey_or_rgb
from images.png import encode_png

_BLOCK = 1 << 16
_BLACK_IS_ZERO = ("1", "L", "I", "I;16", "F", "RGB")

Pixels = npt.NDArray[np.uint8]


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


def from_pixels(pixels: Pixels) -> StoredImage:
    """Pixels [H, W], [H, W, 1] or [H, W, 3] of type uint8 -> PNG."""
    [stored] = from_pixels_of_many(pixels[np.newaxis])
    return stored


def from_pixels_of_many(images: Pixels) -> Iterator[StoredImage]:
    """N images of one size, [N, H, W], [N, H, W, 1] or [N, H, W, 3] of type uint8 -> N PNGs."""
    images = images.reshape(*images.shape[:3], -1)
    for pixels, encoded, mean, contrast in zip(images, encode_png(images), *_means_and_contrasts(images), strict=True):
        yield _stored(encoded, pixels, mean, contrast)


def from_file_bytes(content: bytes) -> StoredImage:
    """An image file's bytes, converted like `decoding.as_viewed`, with their statistics.

    Raises UnreadableImageError for empty, truncated or oversized content or an unsupported format.
    """
    with opened(content) as image:
        if is_plain(image):
            decoded = _decode_as_in_serving(content)
            if decoded is not None:
                [mean], [contrast] = _means_and_contrasts(decoded[np.newaxis])
                return _stored(content, decoded, mean, contrast)
        return from_pixels(to_grey_or_rgb(image))


def mask_from_file_bytes(content: bytes, *, height_px: int, width_px: int) -> bytes:
    """A mask file's bytes -> a PNG of [H, W]: 0 where the mask is black, 255 (defective) elsewhere.

    Ignores transparency. Raises UnreadableImageError unless the content is an image of this size.
    """
    with opened(content) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.size != (width_px, height_px):
            raise UnreadableImageError(
                f"{upright.width}x{upright.height} pixels, but the image has {width_px}x{height_px}"
            )
        if upright.mode not in _BLACK_IS_ZERO:
            upright = upright.convert("RGB")
        is_defective = np.asarray(upright).reshape(height_px, width_px, -1).any(axis=2)
    [mask] = encode_png(is_defective[np.newaxis, :, :, np.newaxis].astype(np.uint8) * 255)
    return mask


def _decode_as_in_serving(content: bytes) -> Pixels | None:
    """[H, W, C], or None if TensorFlow rejects the file; Pillow may still accept it."""
    import tensorflow as tf

    try:
        return np.asarray(tf.io.decode_image(content, expand_animations=False))
    except tf.errors.InvalidArgumentError:
        return None


def _means_and_contrasts(images: Pixels) -> tuple[list[float], list[float]]:
    """[N, H, W, C] -> N means and N standard deviations, in [0, 1] units.

    The sums are integers that float64 represents exactly, so the results are the same on every machine.
    """
    values = images.reshape(len(images), -1)
    sums, squares = np.zeros(len(images)), np.zeros(len(images))
    for start in range(0, values.shape[1], _BLOCK):
        block = values[:, start : start + _BLOCK].astype(np.float64)
        sums += block.sum(axis=1)
        squares += np.einsum("ij,ij->i", block, block)
    means = sums / values.shape[1]
    variances = np.maximum(squares / values.shape[1] - means**2, 0.0)
    return (means / 255.0).tolist(), (np.sqrt(variances) / 255.0).tolist()


def _stored(encoded: bytes, pixels: Pixels, mean: float, contrast: float) -> StoredImage:
    height_px, width_px, channels = pixels.shape
    digest = hashlib.blake2b(f"{height_px}x{width_px}x{channels}:".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return StoredImage(encoded, height_px, width_px, channels, mean, contrast, digest.digest())
