"""Regions of a map that exceed a limit: where a defect is, how large and how strong, in the image's pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # type: ignore[import-untyped]

Map = npt.NDArray[Any]
_ANY_NEIGHBOUR = np.ones((3, 3))


@dataclass(frozen=True)
class Region:
    """Connected pixels. `left`, `top`, `right` and `bottom` are edges in pixels, from 0 to the image's width or height.

    `area_px` in pixels and `area_percent` of the image; `peak` and `mean` of the map, as multiples of its limit.
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

        Rounds as tf.image.resize_with_pad does.
        """
        (height_px, width_px), (rows, columns) = size, shape
        if not is_padded:
            return cls(height_px, width_px, 0, 0, rows, columns)
        shrink = max(height_px / rows, width_px / columns)
        top, left = (
            max(0, math.floor((whole - side / shrink) / 2)) for whole, side in ((rows, height_px), (columns, width_px))
        )
        inner = max(1, math.floor(height_px / shrink)), max(1, math.floor(width_px / shrink))
        return cls(height_px, width_px, top, left, *inner)

    @property
    def pixel_area(self) -> float:
        """Pixels of the image that one position of the map covers."""
        return self.height_px / self.rows * self.width_px / self.columns

    def crop(self, values: Map) -> Map:
        """The part [rows, columns] of a map [H, W] that shows the image."""
        cropped: Map = values[self.top : self.top + self.rows, self.left : self.left + self.columns]
        return cropped

    def full_size(self, values: Map) -> Map:
        """A map [H, W] at the image's size, each pixel with the value of the position that covers it."""
        rows = (np.arange(self.height_px) + 0.5) * self.rows // self.height_px
        columns = (np.arange(self.width_px) + 0.5) * self.columns // self.width_px
        enlarged: Map = self.crop(values)[np.ix_(rows.astype(int), columns.astype(int))]
        return enlarged


def find_regions(anomaly_map: Map, placement: Placement, *, smallest_share: float = 0.0) -> list[Region]:
    """The connected regions (of 8 neighbours) in which a map [H, W] exceeds 1 or is not finite, by falling peak.

    Regions that cover less than `smallest_share` of the image are left out.
    """
    values = placement.crop(anomaly_map)
    finite = np.where(np.isfinite(values), values, np.finfo(np.float32).max)
    labels, _ = ndimage.label(finite > 1.0, _ANY_NEIGHBOUR)
    down, across = placement.height_px / placement.rows, placement.width_px / placement.columns
    regions = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        inside = finite[rows, columns][labels[rows, columns] == number]
        share = len(inside) / finite.size
        if share < smallest_share:
            continue
        regions.append(
            Region(
                left=columns.start * across,
                top=rows.start * down,
                right=columns.stop * across,
                bottom=rows.stop * down,
                area_px=len(inside) * placement.pixel_area,
                area_percent=100.0 * share,
                peak=float(inside.max()),
                mean=float(inside.mean(dtype=np.float64)),
            )
        )
    return sorted(regions, key=lambda region: -region.peak)


def mask_of(anomaly_map: Map, placement: Placement, *, smallest_share: float = 0.0) -> npt.NDArray[np.uint8]:
    """255 where a region of `find_regions` is, at the image's size: [height_px, width_px]."""
    values = placement.crop(anomaly_map)
    flagged = (values > 1.0) | ~np.isfinite(values)
    labels, count = ndimage.label(flagged, _ANY_NEIGHBOUR)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    counts = areas >= smallest_share * values.size
    counts[0] = False
    mask = np.zeros(anomaly_map.shape, np.uint8)
    mask[placement.top : placement.top + placement.rows, placement.left : placement.left + placement.columns] = (
        255 * counts[labels]
    )
    return placement.full_size(mask)
