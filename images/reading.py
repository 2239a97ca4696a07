"""How image files are read: the part of the `image:` section that ingestion, scoring and the graph share."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from runtime.settings import Section

_FEW_BITS: Final = 12
"""Files of 16 bits that use no more have at most 16 levels in their upper byte, which a depth of 8 keeps."""
_RANGES: Final = "must be full, [low, high] with low < high, or {percentiles: [low, high]} from 0 to 100"


class Percentiles(Section):
    """A range that Transform computes once, over all training images."""

    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]]
    """Percentiles of the training images' values that become 0 and 1, with at most two decimals, such as [0.1, 99.9].
    Values beyond them are clipped."""


class Reading(Section):
    """Depth, range and pages of image files; the defaults are those of files of 8 bits."""

    model_config = ConfigDict(allow_inf_nan=False)

    depth: Literal[8, 16] = 8
    """Bits of each value that are kept: of a file of 16 bits, 8 keeps the upper byte, and 16 all. Files of 8 bits are
    read with either."""
    range: Literal["full"] | tuple[float, float] | Percentiles = "full"
    """Which values become 0 and 1. `full`: the range of the file's type; `[low, high]`: these values, in levels of
    `depth`, or in the file's own units for signed, 32-bit and floating-point TIFF, and for DICOM; `{percentiles: [0.1,
    99.9]}`: those of the training images. One range holds for all images."""
    page: Literal["first", "all"] = "first"
    """Which pages of a TIFF file, or frames of DICOM, are images: the `first`, or `all`, with names such as
    `stack.tif#3`."""

    alpha: Literal["white", "roi"] = "white"
    """What fully transparent pixels are: `white`, as viewers show them, or outside the image's own region of interest
    (`roi`), which a manifest's column `roi` gives, too. Partly transparent pixels are blended with white."""

    @field_validator("range", mode="before")
    @classmethod
    def _check_range(cls, value: Any) -> Any:
        ends: Any = value.get("percentiles") if isinstance(value, dict) else value
        if isinstance(value, Percentiles) or value == "full":
            return value
        is_pair = isinstance(ends, list | tuple) and len(ends) == 2 and all(isinstance(e, int | float) for e in ends)
        if not is_pair or not ends[0] < ends[1]:
            raise ValueError(f"image.range {value!r} {_RANGES}")
        if isinstance(value, dict) and any(round(end, 2) != end for end in ends):
            raise ValueError(f"image.range {value!r}: percentiles have at most two decimals; round them")
        return value

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if self.depth == 8 and isinstance(self.range, tuple) and (self.range[0] < 0 or self.range[1] > 255):
            raise ValueError(
                f"image.range {list(self.range)} goes beyond the levels 0 to 255 of image.depth 8; set image.depth: 16"
            )
        return self

    @property
    def has_range(self) -> bool:
        """Whether a range of its own, one for all images, defines 0 and 1."""
        return self.range != "full"

    @property
    def reads_values(self) -> bool:
        """Whether values without black and white of their own are read, such as floats."""
        return self.depth == 16 and self.has_range


def reading_of(settings: Reading) -> Reading:
    """Only what reading a file needs, of a section that has more."""
    return Reading(**{name: getattr(settings, name) for name in Reading.model_fields})


# Without validation, whose preparation would delay every message about a mistake in the configuration.
EIGHT_BITS: Final = Reading.model_construct()
AS_STORED: Final = Reading.model_construct(
    depth=16, range=Percentiles.model_construct(percentiles=(0.0, 100.0)), alpha="roi"
)
"""Keeps all that a file holds, for a model whose settings are unknown: its graph reduces that to what it needs."""


def few_levels_left(depth: int, used_bits: int) -> int:
    """Grey levels that are left of files of 16 bits, by `Shown.used_bits`; 0 if they are not few."""
    return 2 ** (used_bits - 8) if depth == 8 and 0 < used_bits <= _FEW_BITS else 0
