"""The `image:` section of the configuration."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from images.reading import Reading
from images.region_of_interest import Inside, Region, pixels_inside

Normalisation = Literal["unit", "zscore", "minmax"]

_REGIONS = (
    "must be {box: [left, top, right, bottom]} or {polygon: [[x, y], ...]} with at least three corners, in fractions "
    "of the image from 0 to 1; mask files and masks per image are not supported, so draw a polygon around the region"
)


class ImageSettings(Reading):
    """Depth, range, size, colour and normalisation of every image that the model sees."""

    height_px: int = Field(8, ge=4, le=1024)
    """Height in pixels that every image is resized to."""
    width_px: int = Field(8, ge=4, le=1024)
    """Width in pixels that every image is resized to."""
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
    image's width and height. What lies outside is black to the model, and counts for neither score nor map. Needs
    `fit: stretch`."""

    @field_validator("roi", mode="before")
    @classmethod
    def _check_form(cls, value: Any) -> Any:
        if value is None or isinstance(value, Region):
            return value
        given = {name: own for name, own in value.items() if own is not None} if isinstance(value, dict) else {}
        if len(given) != 1 or not set(given) <= {"box", "polygon"} or len(next(iter(given.values()))) < 3:
            raise ValueError(f"image.roi {value!r} {_REGIONS}")
        return value

    @model_validator(mode="after")
    def _check_region(self) -> Self:
        if self.roi is not None and self.fit == "pad":
            raise ValueError("image.roi cannot be combined with fit: pad; set fit: stretch")
        if self.inside is not None and not self.inside.any():
            raise ValueError(f"image.roi {self.roi.corners if self.roi else []} contains no pixel; enlarge the region")
        return self

    @property
    def inside(self) -> Inside | None:
        """The model's pixels that lie in the region of interest: [H, W]; None if all count."""
        return None if self.roi is None else pixels_inside(self.roi.corners, self.height_px, self.width_px)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height_px, self.width_px, self.channels

    @property
    def values_per_image(self) -> int:
        """Height times width times channels."""
        return self.height_px * self.width_px * self.channels
