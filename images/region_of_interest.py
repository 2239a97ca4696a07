"""The part of an image that counts: for all images alike (`image.roi`), or for each its own (`image.alpha: roi`)."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from images.region import Points, Region

Inside = npt.NDArray[np.bool_]

FAINTEST: Final = np.float32(1e-5)
"""The darkest pixel that counts in an image with a region of interest of its own: less than a level of 16 bits."""


def inside_of(corners: Points, down: Any, across: Any) -> Any:
    """Which points lie inside the polygon, by the even-odd rule: down [H, 1] and across [1, W] -> bool [H, W].

    Arrays and tensors of float32 in fractions of the image; the result is of the same kind.
    """
    inside = (down < 0.0) & (across < 0.0)
    for (x, y), (next_x, next_y) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y != next_y:
            crosses = (down < y) ^ (down < next_y)
            inside = inside ^ (crosses & (across < x + (down - y) * ((next_x - x) / (next_y - y))))
    return inside


def cell_of(pixels: Any, side_px: Any, cells: int) -> Any:
    """Which of `cells` along a side of an image the centres of its pixels lie in; integers, arrays or tensors."""
    return (2 * pixels + 1) * cells // (2 * side_px)


def pixels_inside(region: Region, height_px: int, width_px: int) -> Inside:
    """The pixels of an image whose centres lie inside the region: [H, W]."""
    mask = region.mask_pixels
    if mask is not None:
        return sampled(mask, height_px, width_px)
    down, across = ((np.arange(side, dtype=np.float32) + np.float32(0.5)) / side for side in (height_px, width_px))
    inside: Inside = inside_of(region.corners, down.astype(np.float32)[:, None], across.astype(np.float32)[None, :])
    return inside


def lit_inside(pixels: npt.NDArray[Any]) -> Inside:
    """Which pixels [..., H, W, C] count in images with regions of interest of their own: all that are not black."""
    inside: Inside = (pixels > FAINTEST / 2).any(axis=-1)
    return inside


def sampled(mask: Inside, height_px: int, width_px: int) -> Inside:
    """What a mask [h, w] says at the centres of the pixels of an image that it is stretched over: [H, W]."""
    rows, columns = (
        cell_of(np.arange(side), side, own) for side, own in zip((height_px, width_px), mask.shape, strict=True)
    )
    found: Inside = mask[rows][:, columns]
    return found


def sampled_own(mask: Inside, height_px: int, width_px: int) -> Inside:
    """An image's own region [h, w] at a model's size: [H, W].

    Of one so small that it lies between the centres of all pixels, each pixel counts that contains a part of it.
    """
    found = sampled(mask, height_px, width_px)
    if not found.any():
        rows, columns = np.nonzero(mask)
        found[rows * height_px // mask.shape[0], columns * width_px // mask.shape[1]] = True
    return found


def box_around(inside: Inside) -> tuple[slice, slice]:
    """The smallest box that contains all pixels inside."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def region_of_interest(image: Mapping[str, Any], pixels: npt.NDArray[Any]) -> Inside | None:
    """Which of the pixels [N, H, W, C] that a model sees count, by the `image` section of its record; None if all do.

    [N, H, W]: those of the region of all images, or of each image's own.
    """
    if image.get("alpha") == "roi":
        return lit_inside(pixels)
    roi = image.get("roi")
    if not roi:
        return None
    return np.broadcast_to(pixels_inside(Region.model_validate(roi), *pixels.shape[1:3]), pixels.shape[:3])
