"""The part of an image that counts: for all images alike (`image.roi`), or for each its own (`image.alpha: roi`)."""

import base64
import binascii
import functools
import io
from collections.abc import Mapping
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from runtime.errors import UserError
from runtime.object_store import as_path
from runtime.settings import Section

Points = list[tuple[float, float]]
"""The corners (x, y) of a polygon, in fractions of the image."""
Inside = npt.NDArray[np.bool_]

FAINTEST: Final = np.float32(1e-5)
"""The darkest pixel that counts in an image with a region of interest of its own: less than a level of 16 bits."""

Fraction = Annotated[float, Field(ge=0, le=1)]
_PNG_URI: Final = "data:image/png;base64,"
_MOST_CHARACTERS: Final = 64 * 1024
"""Of a mask as text: it is part of commands and of records, whose length is limited."""


class Region(Section):
    """The part of every image that counts: a box, a polygon or a mask."""

    box: tuple[Fraction, Fraction, Fraction, Fraction] | None = None
    """Left, top, right and bottom edge, in fractions of the image's width and height."""
    polygon: list[tuple[Fraction, Fraction]] | None = None
    """Corners `[x, y]` in order, in fractions of the image's width and height."""
    mask: str | None = None
    """An image file, white where images count, black elsewhere, of any size: it is stretched over each image. The
    configuration that a run works with, and the record of a model, have the mask itself, as the URI of a PNG."""

    @field_validator("mask")
    @classmethod
    def _read_mask(cls, value: str | None) -> str | None:
        return value if value is None or value.startswith(_PNG_URI) else _uri_of_file(value)

    @property
    def mask_pixels(self) -> Inside | None:
        """The pixels of the mask that are white: [h, w]; None if the region is a box or a polygon."""
        return None if self.mask is None else _mask_of_uri(self.mask)

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


def _uri_of_file(path: str) -> str:
    """A mask file, white where it is brighter than half, as the URI of a PNG of black and white."""
    from PIL import Image  # only masks need what these import

    from images.decoding import mask_levels

    try:
        is_white = mask_levels(as_path(path).read_bytes()) > 0.5
    except (OSError, UserError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"image.roi.mask {path} cannot be read: {reason}") from None
    if not is_white.any():
        raise ValueError(f"image.roi.mask {path} has no white pixel; paint white what counts")
    file = io.BytesIO()
    Image.fromarray(is_white).save(file, format="PNG", optimize=True)
    uri = _PNG_URI + base64.b64encode(file.getvalue()).decode()
    if len(uri) > _MOST_CHARACTERS:
        raise ValueError(
            f"image.roi.mask {path} takes {len(uri):,} characters in the configuration; at most {_MOST_CHARACTERS:,} "
            "are possible: smooth its edges, or scale it down"
        )
    return uri


@functools.lru_cache(maxsize=4)
def _mask_of_uri(uri: str) -> Inside:
    from images.decoding import mask_levels

    try:
        content = base64.b64decode(uri.removeprefix(_PNG_URI), validate=True)
        inside: Inside = mask_levels(content) > 0.5
    except (binascii.Error, UserError) as error:
        raise ValueError(f"image.roi.mask is a damaged URI: {error}; give the path of an image file") from None
    return inside
