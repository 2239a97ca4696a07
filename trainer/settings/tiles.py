"""`image.tiles`: the overlapping parts in which the model sees an image."""

import math

from pydantic import Field

from runtime.settings import Section


class Tiles(Section):
    """Overlapping parts of every image, all of one size, which the model sees one by one."""

    height_px: int = Field(ge=4, le=1024)
    """Height of a tile in pixels."""
    width_px: int = Field(ge=4, le=1024)
    """Width of a tile in pixels."""
    overlap: float = Field(0.2, ge=0, le=0.8)
    """Share of a tile's sides that neighbours share, at least."""


def starts(side_px: int, tile_px: int, overlap: float) -> tuple[int, ...]:
    """The first pixel of each tile along a side: evenly spaced, from 0 to the last that fits."""
    last = side_px - tile_px
    steps = math.ceil(last / max(1.0, tile_px * (1.0 - overlap)))
    return tuple(round(last * step / steps) for step in range(steps + 1)) if steps else (0,)
