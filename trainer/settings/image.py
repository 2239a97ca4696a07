"""The `image:` section of the configuration."""

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from images.formats import MAX_PIXELS, MAX_SIDE_PX
from images.reading import Reading
from images.region import Region
from trainer.settings.tiles import Tiles, starts

if TYPE_CHECKING:  # NumPy: a mistake in the configuration must not wait for this import
    from images.region_of_interest import Inside

Normalisation = Literal["unit", "zscore", "minmax"]
Shape = tuple[int, int, int]
"""(height, width, channels)."""

LARGEST_SIDE_PX = 1024
"""Of an image that the network sees in whole."""
_LARGEST_WITH_REGION = 2**24
"""Pixels; the graph contains the region, and TensorFlow limits a graph to 2 GB."""

_REGIONS = (
    "must be {box: [left, top, right, bottom]} or {polygon: [[x, y], ...]} with at least three corners, in fractions "
    "of the image from 0 to 1, or {mask: FILE}, an image file that is white where images count"
)


class ImageSettings(Reading):
    """Depth, range, size, colour and normalisation of every image that the model sees."""

    height_px: int = Field(8, ge=4, le=MAX_SIDE_PX)
    """Height in pixels that every image is resized to; at most 1024 without `tiles`."""
    width_px: int = Field(8, ge=4, le=MAX_SIDE_PX)
    """Width in pixels that every image is resized to; at most 1024 without `tiles`."""
    tiles: Tiles | None = None
    """Cut every image, once it is resized, into overlapping tiles that the model sees one by one; docs/tiles.md. With
    tiles, `height_px` times `width_px` may be up to 100 million."""
    channels: Literal[1, 3] = 1
    """1 converts images to grey, 3 to RGB."""
    fit: Literal["stretch", "pad"] = "stretch"
    """How an image with another aspect ratio is resized: `stretch` distorts it; `pad` keeps its aspect ratio and fills
    the rest with black."""
    normalisation: Normalisation = "unit"
    """Range of the encoder's input. `unit`: [0, 1]; `zscore`: zero mean and unit variance per channel; `minmax`: [0, 1]
    over the range observed in the training images, per channel."""

    roi: Region | None = None
    """The region of interest: `{box: [left, top, right, bottom]}` or `{polygon: [[x, y], ...]}`, in fractions of the
    image's width and height, or `{mask: FILE}`. What lies outside is black to the model, and counts for neither score
    nor map. Needs `fit: stretch`."""

    @field_validator("roi", mode="before")
    @classmethod
    def _check_form(cls, value: Any) -> Any:
        if value is None or isinstance(value, Region):
            return value
        given = {name: own for name, own in value.items() if own is not None} if isinstance(value, dict) else {}
        is_one = len(given) == 1 and set(given) <= {"box", "polygon", "mask"}
        if not is_one or ("mask" not in given and len(next(iter(given.values()))) < 3):
            raise ValueError(f"image.roi {value!r} {_REGIONS}")
        return value

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        for field in ("height_px", "width_px"):
            side_px = getattr(self, field)
            if self.tiles is None and side_px > LARGEST_SIDE_PX:
                raise ValueError(
                    f"image.{field} {side_px} is more than {LARGEST_SIDE_PX}; lower it, or set image.tiles, such as "
                    "{height_px: 256, width_px: 256}"
                )
            if self.tiles is not None and getattr(self.tiles, field) > side_px:
                raise ValueError(
                    f"image.tiles.{field} {getattr(self.tiles, field)} is more than image.{field} {side_px}; lower it, "
                    f"or raise image.{field} to the size of your images"
                )
        if self.height_px * self.width_px > MAX_PIXELS:
            raise ValueError(
                f"image.height_px {self.height_px} times image.width_px {self.width_px} is more than {MAX_PIXELS:,} "
                "pixels; lower them"
            )
        return self

    @model_validator(mode="after")
    def _check_region(self) -> Self:
        own = "image.alpha: roi" if self.alpha == "roi" else "image.roi"
        if (self.roi is not None or self.alpha == "roi") and self.fit == "pad":
            raise ValueError(f"{own} cannot be combined with fit: pad; set fit: stretch")
        if self.roi is not None and self.alpha == "roi":
            raise ValueError(
                "image.roi is the same region for all images, and image.alpha: roi each image's own; leave out one"
            )
        if self.roi is not None and self.height_px * self.width_px > _LARGEST_WITH_REGION:
            raise ValueError(
                f"image.roi supports at most {_LARGEST_WITH_REGION:,} pixels, but image.height_px {self.height_px} "
                f"times image.width_px {self.width_px} is more; lower them, or cut the files to the region"
            )
        if self.inside is not None and not self.inside.any():
            what = "mask" if self.roi is None or self.roi.mask else list(self.roi.corners)
            raise ValueError(
                f"image.roi {what} contains no pixel of an image of {self.width_px} x {self.height_px} pixels, the "
                "model's size; enlarge the region, or raise image.width_px and image.height_px"
            )
        return self

    @property
    def inside(self) -> "Inside | None":
        """The model's pixels that lie in the region of interest: [H, W]; None if all count."""
        if self.roi is None:
            return None
        from images.region_of_interest import pixels_inside

        return pixels_inside(self.roi, self.height_px, self.width_px)

    @property
    def shape(self) -> Shape:
        """Of an image."""
        return self.height_px, self.width_px, self.channels

    @property
    def network_shape(self) -> Shape:
        """Of what the network sees: a tile, or the whole image if there are none."""
        return self.shape if self.tiles is None else (self.tiles.height_px, self.tiles.width_px, self.channels)

    @property
    def tile_starts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tiles' first rows, and their first columns; each row is combined with each column."""
        overlap = self.tiles.overlap if self.tiles else 0.0
        height_px, width_px, _ = self.network_shape
        return starts(self.height_px, height_px, overlap), starts(self.width_px, width_px, overlap)

    @property
    def tile_count(self) -> int:
        """Tiles of an image; 1 without `tiles`."""
        rows, columns = self.tile_starts
        return len(rows) * len(columns)

    @property
    def values_per_image(self) -> int:
        """Height times width times channels."""
        return math.prod(self.shape)
