"""The `image:` section of the configuration."""

from typing import Literal

from pydantic import Field

from images.reading import Reading

Normalisation = Literal["unit", "zscore", "minmax"]


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

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height_px, self.width_px, self.channels

    @property
    def values_per_image(self) -> int:
        """Height times width times channels."""
        return self.height_px * self.width_px * self.channels
