"""Regions of an anomaly map that exceed 1: where a defect is, how large and how strong, in the image's pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # type: ignore[import-untyped]

Map = npt.NDArray[Any]
_ANY_NEIGHBOUR = np.ones((3, 3))


@dataclass(frozen=True)
class Region:
    """Connected pixels. `left`, `top`, `right` and `bottom` are edges in pixels, from 0 to the image's width or height.

    `area_px` in pixels and `area_percent` of the image; `peak` and `mean` of the anomaly map.
    """

    left: float
    top: float
    right: float
    bottom: float
    area_px: float
    area_percent: float
    peak: float
    mean: float


@dataclass(frozen=True)
class Place:
    """A point in pixels, from 0 to the image's width or height, and the value of the anomaly map there."""

    x: float
    y: float
    value: float


@dataclass(frozen=True)
class Placement:
    """Where an image of `height_px` x `width_px` lies on a map: the first row and column, and how many of each."""

    height_px: int
    width_px: int
    top: int
    left: int
    rows: int
    columns: int

    @classmethod
    def on_map(cls, size: tuple[int, int], shape: Sequence[int], *, is_padded: bool) -> "Placement":
        """For an image of `size` (height, width) that was resized to `shape`, padded or else stretched.

        The arithmetic is that of `trainer.data.resizing`, in integers.
        """
        (height_px, width_px), (rows, columns) = size, shape
        if not is_padded:
            return cls(height_px, width_px, 0, 0, rows, columns)
        side_px, filled = max(((height_px, rows), (width_px, columns)), key=lambda side: Fraction(*side))
        top, left = (
            (whole * side_px - own_px * filled) // (2 * side_px) for own_px, whole in zip(size, shape, strict=True)
        )
        inner = (max(1, own_px * filled // side_px) for own_px in size)
        return cls(height_px, width_px, top, left, *inner)

    def crop(self, values: Map) -> Map:
        """The part [rows, columns] of a map [H, W] that shows the image."""
        cropped: Map = values[self.top : self.top + self.rows, self.left : self.left + self.columns]
        return cropped

    def box_on_map(self, region: Region) -> tuple[float, float, float, float]:
        """A region's left, top, right and bottom edges in columns and rows of the map, padding included."""
        across, down = self.columns / self.width_px, self.rows / self.height_px
        left, right = (self.left + edge * across for edge in (region.left, region.right))
        top, bottom = (self.top + edge * down for edge in (region.top, region.bottom))
        return left, top, right, bottom

    def enlarge(self, values: Map) -> Map:
        """Values [rows, columns] at the image's size [height_px, width_px]: each pixel's is that of its position.

        Where the image is smaller, it is the largest of a pixel's positions, so that no region is lost.
        """
        return _at_size(_at_size(values, self.height_px, axis=0), self.width_px, axis=1)


def find_regions(
    anomaly_map: Map, placement: Placement, *, smallest_share: float = 0.0
) -> tuple[list[Region], npt.NDArray[np.int32]]:
    """The connected regions (of 8 neighbours) in which a map [H, W] exceeds 1 or is not finite, the highest peak first.

    Regions that cover less than `smallest_share` of the image are left out. Also returns the region that each position
    of the image belongs to [rows, columns]: 1 for the first, 0 for none.
    """
    finite = _finite(placement.crop(anomaly_map))
    labels = ndimage.label(finite > 1.0, _ANY_NEIGHBOUR)[0]
    found = {
        number: _region(finite[place], labels[place] == number, place, finite.shape, placement)
        for number, place in enumerate(ndimage.find_objects(labels), 1)
    }
    kept = [number for number, region in found.items() if region.area_percent >= 100.0 * smallest_share]
    kept.sort(key=lambda number: -found[number].peak)
    ranks = np.zeros(len(found) + 1, np.int32)
    ranks[kept] = np.arange(1, len(kept) + 1)
    return [found[number] for number in kept], ranks[labels]


def strongest_place(anomaly_map: Map, placement: Placement) -> Place:
    """The centre of the position where a map [H, W] is highest, the first of several."""
    finite = _finite(placement.crop(anomaly_map))
    row, column = divmod(int(finite.argmax()), placement.columns)
    down, across = placement.height_px / placement.rows, placement.width_px / placement.columns
    return Place(x=(column + 0.5) * across, y=(row + 0.5) * down, value=float(finite[row, column]))


def _finite(values: Map) -> Map:
    """What is not finite is as strange as can be."""
    finite: Map = np.where(np.isfinite(values), values, np.finfo(np.float32).max)
    return finite


def _at_size(values: Map, pixels: int, *, axis: int) -> Map:
    positions = values.shape[axis]
    if positions > pixels:
        fewer: Map = np.maximum.reduceat(values, np.arange(pixels) * positions // pixels, axis=axis)
        return fewer
    return values.take(((np.arange(pixels) + 0.5) * positions / pixels).astype(int), axis=axis)


def _region(values: Map, inside: Map, place: tuple[slice, slice], shape: Sequence[int], placement: Placement) -> Region:
    rows, columns = place
    own = values[inside]
    down, across = placement.height_px / placement.rows, placement.width_px / placement.columns
    return Region(
        left=columns.start * across,
        top=rows.start * down,
        right=columns.stop * across,
        bottom=rows.stop * down,
        area_px=len(own) * down * across,
        area_percent=100.0 * len(own) / math.prod(shape),
        peak=float(own.max()),
        mean=float(own.mean(dtype=np.float64)),
    )
