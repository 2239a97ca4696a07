"""Paints synthetic defects of given sizes into images.

Images are [H, W] or [H, W, 3] of type uint8; every function returns a new one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from images.synthetic_defects import line_mask, random_box

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Random = np.random.Generator

_LINE_WIDTHS_PER_SIDE = 64
_LARGEST_ASPECT = 2.0


def occlude(image: Pixels, area: float, random: Random) -> Pixels:
    """Cover a rectangle of this share of the image: black on a bright image, white on a dark one."""
    rows, columns = _rectangle(image, area, random)
    mask = np.zeros(image.shape[:2], bool)
    mask[rows, columns] = True
    return _cover(image, mask)


def cut_and_paste(image: Pixels, area: float, random: Random) -> Pixels:
    """Copy a rectangle of this share of the image elsewhere in it (CutPaste: Li et al. 2021, arXiv:2104.04015)."""
    rows, columns = _rectangle(image, area, random)
    height_px, width_px = rows.stop - rows.start, columns.stop - columns.start
    top = int(random.integers(0, image.shape[0] - height_px + 1))
    left = int(random.integers(0, image.shape[1] - width_px + 1))
    pasted = image.copy()
    pasted[rows, columns] = image[top : top + height_px, left : left + width_px]
    return pasted


def scratch(image: Pixels, length: float, random: Random) -> Pixels:
    """Draw a thin line as long as this share of the diagonal: black on a bright image, white on a dark one."""
    height_px, width_px = image.shape[:2]
    angle = random.uniform(0, math.pi)
    half = length * math.hypot(height_px, width_px) / 2
    across, down = abs(half * math.cos(angle)), abs(half * math.sin(angle))
    # Keep the whole line inside the image if possible.
    x = random.uniform(min(across, width_px / 2), max(width_px - across, width_px / 2))
    y = random.uniform(min(down, height_px / 2), max(height_px - down, height_px / 2))
    width = max(1, round(min(height_px, width_px) / _LINE_WIDTHS_PER_SIDE))
    return _cover(image, line_mask(image.shape, (y, x), angle, 2 * half, width) >= 0.5)


def blur(image: Pixels, sigma: float, random: Random) -> Pixels:
    """Apply a Gaussian blur whose standard deviation is this share of the longer side."""
    blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma * max(image.shape[:2])))
    return np.asarray(blurred)


def add_noise(image: Pixels, sigma: float, random: Random) -> Pixels:
    """Add Gaussian noise of this standard deviation, for pixel values in [0, 1]."""
    return _to_pixels(image + random.normal(0.0, 255.0 * sigma, image.shape))


def change_brightness(image: Pixels, shift: float, random: Random) -> Pixels:
    """Add or subtract this value everywhere, for pixel values in [0, 1]."""
    return _to_pixels(image + random.choice([-255.0, 255.0]) * shift)


@dataclass(frozen=True)
class Defect:
    """One kind of defect and the sizes to try, in ascending order; `size_of` describes what a size is a share of."""

    kind: str
    inject: Callable[[Pixels, float, Random], Pixels]
    size_of: str
    sizes: tuple[float, ...]
    smallest_size: Callable[[int, int], float] = lambda height_px, width_px: 0.0
    """The smallest size that changes a pixel of an image of this height and width; smaller ones are not tried."""


_AREAS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
_SHIFTS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
DEFECTS = (
    Defect("occlusion", occlude, "the area", _AREAS, lambda height_px, width_px: 1 / (height_px * width_px)),
    Defect("cut and paste", cut_and_paste, "the area", _AREAS, lambda height_px, width_px: 1 / (height_px * width_px)),
    Defect(
        "scratch", scratch, "the diagonal", (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
        lambda height_px, width_px: 2 / math.hypot(height_px, width_px),
    ),
    Defect(
        "blur", blur, "the longer side", (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15),
        lambda height_px, width_px: 0.25 / max(height_px, width_px),
    ),
    Defect("noise", add_noise, "the pixel range", _SHIFTS),
    Defect("brightness", change_brightness, "the pixel range", _SHIFTS),
)  # fmt: skip


def _rectangle(image: Pixels, area: float, random: Random) -> tuple[slice, slice]:
    """A randomly placed rectangle of this share of the image: at most twice as long as wide, at least one pixel."""
    height_px, width_px = image.shape[:2]
    aspect = math.exp(random.uniform(-math.log(_LARGEST_ASPECT), math.log(_LARGEST_ASPECT)))
    wanted_px = area * height_px * width_px
    rows = min(height_px, max(1, round(math.sqrt(wanted_px * aspect))))
    columns = min(width_px, max(1, round(wanted_px / rows)))
    return random_box(height_px, width_px, rows, columns, random)


def _cover(image: Pixels, mask: Mask) -> Pixels:
    covered = image.copy()
    covered[mask] = 0 if image.mean() > 127.5 else 255
    return covered


def _to_pixels(values: npt.NDArray[np.float64]) -> Pixels:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
