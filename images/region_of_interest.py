"""`image.roi`: the part of an image that counts, in fractions of its width and height."""

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from runtime.settings import Section

Points = list[tuple[float, float]]
"""The corners (x, y) of a polygon, in fractions of the image."""
Inside = npt.NDArray[np.bool_]

Fraction = Annotated[float, Field(ge=0, le=1)]


class Region(Section):
    """The part of every image that counts, either as a box or as a polygon."""

    box: tuple[Fraction, Fraction, Fraction, Fraction] | None = None
    """Left, top, right and bottom edge, in fractions of the image's width and height."""
    polygon: list[tuple[Fraction, Fraction]] | None = None
    """Corners `[x, y]` in order, in fractions of the image's width and height."""

    @property
    def corners(self) -> Points:
        """Of the box or the polygon, in order."""
        if self.box is None:
            return self.polygon or []
        left, top, right, bottom = self.box
        return [(left, top), (right, top), (right, bottom), (left, bottom)]


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


def pixels_inside(corners: Points, height_px: int, width_px: int) -> Inside:
    """The pixels of an image whose centres lie inside the polygon: [H, W]."""
    down, across = ((np.arange(side, dtype=np.float32) + np.float32(0.5)) / side for side in (height_px, width_px))
    inside: Inside = inside_of(corners, down.astype(np.float32)[:, None], across.astype(np.float32)[None, :])
    return inside


def box_around(inside: Inside) -> tuple[slice, slice]:
    """The smallest box that contains all pixels inside."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def region_of_interest(image: dict[str, Any]) -> Inside | None:
    """The model's pixels that count, by the `image` section of its record: [H, W]; None if all do."""
    roi = image.get("roi")
    return roi and pixels_inside(Region.model_validate(roi).corners, image["height_px"], image["width_px"])
