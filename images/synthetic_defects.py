"""Faint synthetic defects on normal images, to compare how well models and scores find what nobody has labelled.

Images are [H, W, C], float in [0, 1], uint8 or uint16; every function returns a new one. They are faint on purpose:
black and white rectangles are found by every local score, so they rank scores wrongly.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from images.region_of_interest import FAINTEST, Inside, box_around

Images = npt.NDArray[Any]
Mask = npt.NDArray[np.float32]
Random = np.random.Generator

CONTRAST: Final = 0.12
"""Change of brightness at a defect's centre, for pixel values in [0, 1]; less in images that hardly vary."""
MOST_SPREADS: Final = 2.0
"""Change of brightness at most, in standard deviations of the image: what exceeds them is glaring in a dark picture."""
MIX: Final = 0.5
"""Share of other pixels in a `patch` and a `cutout`."""
_LEAST_CONTRAST: Final = 1 / 255
"""Change of brightness at least, so that a defect in a blank image exists."""
_ATTEMPTS: Final = 50
"""So often a defect is drawn until it touches the region of interest."""


def paint(images: Images, kind: str, *, seed: int, first: int = 0, inside: Inside | None = None) -> Images:
    """One defect of a kind of KINDS in each image: [N, H, W, C] -> [N, H, W, C].

    The seed and the image's number, `first` for the first one, determine the defect. A `patch` takes its pixels from
    the next image in `images`. With a region of interest `inside` [N, H, W], the defect lies in it.
    """
    defect = _DEFECTS[kind]
    is_whole = images.dtype.kind == "u"
    scale = float(np.iinfo(images.dtype).max) if is_whole else 1.0
    painted = np.empty_like(images)
    for row, whole in enumerate(images):
        own = None if inside is None else inside[row]
        box = (slice(None), slice(None)) if own is None else box_around(own)
        random = np.random.default_rng([seed, KINDS.index(kind), first + row])
        image, other = whole[box], images[(row + 1) % len(images)][box]
        painted[row] = whole
        for _ in range(1 if own is None else _ATTEMPTS):
            changed = np.clip(defect(image / scale, other / scale, random), 0.0, 1.0) * scale
            changed = np.round(changed) if is_whole else changed
            if own is not None:
                lit = changed if is_whole else np.maximum(changed, FAINTEST)
                changed = np.where(own[box][..., None], lit, image)
            painted[row][box] = changed
            if not np.array_equal(painted[row], whole):
                break
    return painted


def mean_over_kinds(by_kind: Mapping[str, Any]) -> Any:
    """The mean of numbers, or of arrays, over the kinds that rank models and scores: all but `shade`.

    Where the light hardly varies, a model that has learned nothing but the mean image finds a broad shade as well as
    any other; where it varies, a shade is no defect.
    """
    ranking = [by_kind[kind] for kind in _RANKING if kind in by_kind]
    return sum(ranking) / len(ranking)


def random_box(height_px: int, width_px: int, rows: int, columns: int, random: Random) -> tuple[slice, slice]:
    """A randomly placed box of this size inside an image."""
    top = int(random.uniform() * (height_px - rows + 1))
    left = int(random.uniform() * (width_px - columns + 1))
    return slice(top, top + rows), slice(left, left + columns)


def line_mask(shape: tuple[int, ...], centre: tuple[float, float], angle: float, length: float, width: float) -> Mask:
    """A line with soft edges: [H, W] in [0, 1]; `centre` (y, x), `length` and `width` in pixels."""
    down, across = _offsets(shape, centre)
    beside = np.abs(across * math.sin(angle) - down * math.cos(angle))
    along = np.abs(across * math.cos(angle) + down * math.sin(angle))
    mask: Mask = (np.clip(width / 2 - beside + 0.5, 0, 1) * (along < length / 2)).astype(np.float32)
    return mask


def _scratch(image: Images, other: Images, random: Random) -> Images:
    """A thin straight line, 15 to 40 % of the shorter side long."""
    shorter = min(image.shape[:2])
    angle, length = random.uniform(0, math.pi), random.uniform(0.15, 0.4) * shorter
    width = max(1.0, shorter / 56)
    return _shaded(image, line_mask(image.shape, _centre(image, 0.2, random), angle, length, width))


def _blob(image: Images, other: Images, random: Random) -> Images:
    """A soft spot with a standard deviation of 3 to 8 % of the shorter side."""
    deviation = max(0.5, random.uniform(0.03, 0.08) * min(image.shape[:2]))
    return _shaded(image, _spot(image.shape, _centre(image, 0.2, random), deviation))


def _shade(image: Images, other: Images, random: Random) -> Images:
    """A broad soft shade with a standard deviation of 20 to 30 % of the shorter side."""
    deviation = random.uniform(0.2, 0.3) * min(image.shape[:2])
    return _shaded(image, _spot(image.shape, _centre(image, 0.3, random), deviation))


def _patch(image: Images, other: Images, random: Random) -> Images:
    """A box of 10 to 25 % of each side, mixed half and half with another part of another image."""
    height_px, width_px = image.shape[:2]
    shift = tuple(int(random.integers(side // 4, max(side * 3 // 4, side // 4 + 1))) for side in (height_px, width_px))
    return _mixed(image, np.roll(other, shift, (0, 1)), _box_around(image, _centre(image, 0.2, random), random))


def _cutout(image: Images, other: Images, random: Random) -> Images:
    """A box of 10 to 25 % of each side, mixed half and half with the colour of the image's frame: a part is missing.

    It is centred on a pixel that differs from the frame at least half as much as any does.
    """
    frame = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    colour = np.median(frame, axis=0)
    difference = np.abs(image - colour).mean(axis=-1)
    rows, columns = np.nonzero(difference >= difference.max() / 2)
    chosen = int(random.integers(len(rows)))
    box = _box_around(image, (float(rows[chosen]), float(columns[chosen])), random)
    return _mixed(image, np.broadcast_to(colour, image.shape), box)


_DEFECTS: Final[dict[str, Callable[[Images, Images, Random], Images]]] = {
    "scratch": _scratch,
    "blob": _blob,
    "shade": _shade,
    "patch": _patch,
    "cutout": _cutout,
}
KINDS: Final = tuple(_DEFECTS)
_RANKING: Final = tuple(kind for kind in KINDS if kind != "shade")


def _shaded(image: Images, mask: Mask) -> Images:
    """Darker under the mask if the image is bright there, brighter otherwise, so that no value is clipped."""
    brightness = float((image.mean(axis=-1) * mask).sum() / max(float(mask.sum()), 1e-6))
    contrast = min(CONTRAST, max(MOST_SPREADS * float(image.std()), _LEAST_CONTRAST))
    return image + (contrast if brightness <= 0.5 else -contrast) * mask[..., None]


def _mixed(image: Images, with_image: Images, box: tuple[slice, slice]) -> Images:
    mixed = np.array(image, np.float64)
    mixed[box] = (1.0 - MIX) * image[box] + MIX * with_image[box]
    return mixed


def _centre(image: Images, margin: float, random: Random) -> tuple[float, float]:
    """(y, x), at least this share of each side away from the edges."""
    height_px, width_px = image.shape[:2]
    return random.uniform(margin, 1 - margin) * height_px, random.uniform(margin, 1 - margin) * width_px


def _box_around(image: Images, centre: tuple[float, float], random: Random) -> tuple[slice, slice]:
    """A box of 10 to 25 % of each side around a point, cut off at the edges."""
    slices = []
    for middle, side in zip(centre, image.shape[:2], strict=True):
        length = max(1, round(random.uniform(0.1, 0.25) * side))
        start = min(max(round(middle - length / 2), 0), side - length)
        slices.append(slice(start, start + length))
    return slices[0], slices[1]


def _spot(shape: tuple[int, ...], centre: tuple[float, float], deviation: float) -> Mask:
    """A Gaussian with the value 1 at its centre: [H, W]."""
    down, across = _offsets(shape, centre)
    spot: Mask = np.exp(-(down**2 + across**2) / (2 * deviation**2)).astype(np.float32)
    return spot


def _offsets(shape: tuple[int, ...], centre: tuple[float, float]) -> tuple[Images, Images]:
    """Distances in pixels (down, across) from a point to the centre of every pixel: [H, 1], [1, W]."""
    down = np.arange(shape[0])[:, None] + 0.5 - centre[0]
    across = np.arange(shape[1])[None, :] + 0.5 - centre[1]
    return down, across
