"""The `image.roi` section of the configuration. Imports nothing heavy, so mistakes are reported immediately."""

import base64
import binascii
import functools
import io
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field, field_validator

from runtime.errors import UserError
from runtime.settings import Section

if TYPE_CHECKING:
    from images.region_of_interest import Inside

Points = tuple[tuple[float, float], ...]
"""The corners (x, y) of a polygon, in fractions of the image."""
Fraction = Annotated[float, Field(ge=0, le=1)]
_PNG_URI: Final = "data:image/png;base64,"
_MOST_CHARACTERS: Final = 64 * 1024
"""Of a mask as text: it is part of commands and of records, whose length is limited."""


class Region(Section):
    """The part of every image that counts: a box, a polygon or a mask."""

    box: tuple[Fraction, Fraction, Fraction, Fraction] | None = None
    """Left, top, right and bottom edge, in fractions of the image's width and height."""
    polygon: tuple[tuple[Fraction, Fraction], ...] | None = None
    """Corners `[x, y]` in order, in fractions of the image's width and height."""
    mask: str | None = None
    """An image file, white where images count, black elsewhere, of any size: it is stretched over each image. The
    configuration that a run works with, and the record of a model, have the mask itself, as the URI of a PNG."""

    @field_validator("box")
    @classmethod
    def _check_order(cls, value: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if value is None:
            return None
        left, top, right, bottom = value
        for first, second, names in ((left, right, ("left", "right")), (top, bottom, ("top", "bottom"))):
            if first >= second:
                raise ValueError(
                    f"image.roi.box {list(value)}: {names[0]} {first} must be less than {names[1]} {second}; the "
                    "order is [left, top, right, bottom], not [left, top, width, height]"
                )
        return value

    @field_validator("mask")
    @classmethod
    def _read_mask(cls, value: str | None) -> str | None:
        return value if value is None or value.startswith(_PNG_URI) else _uri_of_file(value)

    @property
    def mask_pixels(self) -> "Inside | None":
        """The pixels of the mask that are white: [h, w]; None if the region is a box or a polygon."""
        return None if self.mask is None else _mask_of_uri(self.mask)

    @property
    def corners(self) -> Points:
        """Of the box or the polygon, in order."""
        if self.box is None:
            return self.polygon or ()
        left, top, right, bottom = self.box
        return (left, top), (right, top), (right, bottom), (left, bottom)


def _uri_of_file(path: str) -> str:
    """A mask file, white where it is brighter than half, as the URI of a PNG of black and white."""
    from PIL import Image  # only masks need what these import

    from images.decoding import mask_levels
    from runtime.object_store import as_path

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
def _mask_of_uri(uri: str) -> "Inside":
    from images.decoding import mask_levels

    try:
        content = base64.b64decode(uri.removeprefix(_PNG_URI), validate=True)
        inside: Inside = mask_levels(content) > 0.5
    except (binascii.Error, UserError) as error:
        raise ValueError(f"image.roi.mask is a damaged URI: {error}; give the path of an image file") from None
    return inside
