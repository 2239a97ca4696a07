"""Small changes to a picture that change nothing about the product it shows, such as light, position and noise.

Images are [H, W] or [H, W, 3] of type uint8 or uint16, and every function returns a new one of the same type. Changes
that need pixels from beyond the edge mirror the image there, since repeated edges look like scratches.
"""

import io
from collections.abc import Callable, Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

from images.regions import Placement
from schema.changes import ChangeName

Pixels = npt.NDArray[Any]
Random = np.random.Generator


def brighten(image: Pixels, factor: float) -> Pixels:
    """Multiply all values by `factor`."""
    return _through_table(image, np.arange(_white(image) + 1.0) * factor)


def apply_gamma(image: Pixels, gamma: float) -> Pixels:
    """Raise all values, as shares of the range, to the power of `gamma`."""
    white = _white(image)
    return _through_table(image, white * (np.arange(white + 1.0) / white) ** gamma)


def shade(image: Pixels, across: float, down: float = 0.0) -> Pixels:
    """Light that changes linearly, from 1 - `across` times (left) to 1 + `across` (right), and likewise `down`."""
    height_px, width_px = image.shape[:2]
    factors = 1.0 + across * _from_centre(width_px) + down * _from_centre(height_px)[:, np.newaxis]
    return _to_pixels(image * (factors if image.ndim == 2 else factors[..., np.newaxis]), image.dtype)


def change_colour_temperature(image: Pixels, share: float) -> Pixels:
    """Raise red and lower blue by this share; a grey image stays as it is."""
    if image.ndim == 2:
        return image.copy()
    return _to_pixels(image * np.array([1.0 + share, 1.0, 1.0 - share]), image.dtype)


def move(image: Pixels, across: float, down: float, degrees: float = 0.0) -> Pixels:
    """Shift by shares of width and height, and rotate about the centre by `degrees`, in one resampling."""
    height_px, width_px = image.shape[:2]
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    margin = int(np.ceil(max(height_px, width_px) * (abs(sin) / 2 + abs(across) + abs(down)))) + 1
    padded = np.pad(image, [(margin, margin)] * 2 + [(0, 0)] * (image.ndim - 2), mode="symmetric")
    size = (padded.shape[1], padded.shape[0])
    x, y = size[0] / 2, size[1] / 2
    x_from, y_from = x + across * width_px, y + down * height_px  # Pillow maps output pixels to input pixels
    affine = (cos, sin, x - cos * x_from - sin * y_from, -sin, cos, y + sin * x_from - cos * y_from)
    inside = slice(margin, margin + height_px), slice(margin, margin + width_px)
    if image.dtype == np.uint8:
        return _transformed(Image.fromarray(padded), size, affine)[inside]
    planes = np.moveaxis(padded.reshape(*padded.shape[:2], -1).astype(np.float32), 2, 0)
    moved = np.stack([_transformed(Image.fromarray(plane), size, affine)[inside] for plane in planes], axis=-1)
    return _to_pixels(moved, image.dtype).reshape(image.shape)


def compress(image: Pixels, quality: int) -> Pixels:
    """Save as JPEG and read again."""
    file = io.BytesIO()
    levels = _white(image) / 255.0  # JPEG has 8 bits
    eight = image if image.dtype == np.uint8 else _to_pixels(image / levels, np.dtype(np.uint8))
    Image.fromarray(eight).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file))
    return read if image.dtype == np.uint8 else _to_pixels(read * levels, image.dtype)


def add_sensor_noise(image: Pixels, levels: float, random: Random) -> Pixels:
    """Add Gaussian noise with a standard deviation of this many of the 255 levels."""
    scale = _white(image) / 255.0
    return _to_pixels(image + scale * levels * random.standard_normal(image.shape, np.float32), image.dtype)


def defocus(image: Pixels, deviation_px: float) -> Pixels:
    """Blur with a Gaussian of this standard deviation in pixels."""
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(deviation_px)))
    deviations = (deviation_px, deviation_px, 0.0)[: image.ndim]
    return _to_pixels(gaussian_filter(image.astype(np.float32), deviations, mode="nearest"), image.dtype)


def change_randomly(image: Pixels, kinds: Collection[ChangeName], random: Random) -> Pixels:
    """A mild change of every kind, about as strong as those that `steadiness` is measured with."""
    if "shift" in kinds or "rotation" in kinds:
        across, down = random.uniform(-0.01, 0.01, 2) * ("shift" in kinds)
        image = move(image, across, down, random.uniform(-1.0, 1.0) * ("rotation" in kinds))
    if "light" in kinds:
        image = apply_gamma(brighten(image, random.uniform(0.8, 1.2)), random.uniform(0.9, 1.1))
        image = shade(image, random.uniform(-0.1, 0.1), random.uniform(-0.1, 0.1))
        image = change_colour_temperature(image, random.uniform(-0.04, 0.04))
    if "blur" in kinds and random.uniform() < 1 / 3:
        image = defocus(image, random.uniform(0.0, 0.7))
    if "noise" in kinds and random.uniform() < 1 / 2:
        image = add_sensor_noise(image, random.uniform(0.0, 3.0), random)
    return image


STEADINESS: Final[dict[str, Callable[[Pixels, Random], Pixels]]] = {
    "darker_10": lambda image, random: brighten(image, 0.9),
    "brighter_10": lambda image, random: brighten(image, 1.1),
    "darker_20": lambda image, random: brighten(image, 0.8),
    "brighter_20": lambda image, random: brighten(image, 1.2),
    "gamma_90": lambda image, random: apply_gamma(image, 0.9),
    "gamma_110": lambda image, random: apply_gamma(image, 1.1),
    "shading": lambda image, random: shade(image, 0.1),
    "warmer": lambda image, random: change_colour_temperature(image, 0.05),
    "shift_1": lambda image, random: move(image, 0.01, 0.01),
    "rotation_1": lambda image, random: move(image, 0.0, 0.0, 1.0),
    "jpeg_85": lambda image, random: compress(image, 85),
    "noise_2": lambda image, random: add_sensor_noise(image, 2.0, random),
    "blur": lambda image, random: defocus(image, 0.7),
}
"""The changes with which every run measures how steady the verdict on normal images is."""
IN_WORDS: Final[dict[str, str]] = {
    "darker_10": "10 % darker",
    "brighter_10": "10 % brighter",
    "darker_20": "20 % darker",
    "brighter_20": "20 % brighter",
    "gamma_90": "brighter in its middle tones (gamma 0.9)",
    "gamma_110": "darker in its middle tones (gamma 1.1)",
    "shading": "lit unevenly by 10 %",
    "warmer": "redder by 5 %",
    "shift_1": "shifted by 1 % of its width and height",
    "rotation_1": "turned by 1 degree",
    "jpeg_85": "saved as JPEG of quality 85",
    "noise_2": "noisy by 2 of 255 levels",
    "blur": "slightly out of focus",
}
"""What each of STEADINESS does to a picture."""
_OF_THE_CAMERA: Final = ("jpeg_85", "noise_2", "blur")
"""Changes that arise in the camera, so they are as fine as its pixels."""
_LARGEST_PX: Final = 1024
"""The longer side of an image at which they are computed, at most."""


def change_picture(name: str, image: Pixels, random: Random, *, picture: Placement) -> Pixels:
    """One of STEADINESS, on the part of an image [H, W], [H, W, 1] or [H, W, 3] that shows a camera's `picture`.

    What arises in the camera is computed at the picture's own size, and added as what remains of it after the resizing:
    JPEG's blocks and noise would otherwise be several times as large as in the picture.
    """
    own = picture.crop(image)
    part = np.ascontiguousarray(own[..., 0] if own.shape[2:] == (1,) else own)
    scale = min(1.0, _LARGEST_PX / max(picture.height_px, picture.width_px))
    source_px = (max(1, round(scale * picture.height_px)), max(1, round(scale * picture.width_px)))
    own_px = (picture.rows, picture.columns)
    if name not in _OF_THE_CAMERA or source_px == own_px:
        changed = STEADINESS[name](part, random)
    else:
        seen = _to_pixels(_resized(part, source_px), part.dtype)
        remaining = _resized(STEADINESS[name](seen, random), own_px) - _resized(seen, own_px)
        changed = _to_pixels(part + remaining, part.dtype)
    whole = image.copy()
    picture.crop(whole)[:] = changed.reshape(own.shape)
    return whole


def _from_centre(side_px: int) -> npt.NDArray[np.float64]:
    """Where each pixel's centre lies between the edges -1 and 1: [side_px]."""
    positions: npt.NDArray[np.float64] = np.arange(0.5, side_px, dtype=np.float64) * (2.0 / side_px) - 1.0
    return positions


def _through_table(image: Pixels, table: npt.NDArray[np.float64]) -> Pixels:
    return _to_pixels(table, image.dtype)[image]


def _resized(image: Pixels, size_px: tuple[int, int]) -> npt.NDArray[np.float32]:
    """In another height and width, with a triangle filter as wide as the coarser grid."""
    planes = np.moveaxis(image.reshape(*image.shape[:2], -1).astype(np.float32), 2, 0)
    resized = [np.asarray(Image.fromarray(one).resize(size_px[::-1], Image.Resampling.BILINEAR)) for one in planes]
    return np.stack(resized, axis=-1).reshape(*size_px, *image.shape[2:])


def _transformed(image: Image.Image, size: tuple[int, int], affine: tuple[float, ...]) -> npt.NDArray[Any]:
    return np.asarray(image.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))


def _white(image: Pixels) -> float:
    """The largest level: 255 of 8 bits, 65,535 of 16."""
    return float(np.iinfo(image.dtype).max)


def _to_pixels(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> Pixels:
    return np.clip(np.round(values), 0, np.iinfo(dtype).max).astype(dtype)
