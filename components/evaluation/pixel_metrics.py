"""How well anomaly maps localise defects, computed in bounded memory from pixel counts per level."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # type: ignore[import-untyped]
from sklearn.metrics import auc

from schema.features import UNKNOWN

LEVELS = 2**16
"""A pixel's level is the upper half of its float32, as `signatures.ERROR_LEVELS` has it: steps of at most 0.8 %."""
_PRO_LIMIT = 0.3
_ANY_NEIGHBOUR = np.ones((3, 3))

Counts = npt.NDArray[np.float64]


@dataclass
class PixelCounts:
    """Counts per level: sound pixels, defective pixels, and shares of defective regions (`regions` in total)."""

    sound: Any = 0.0
    defective: Any = 0.0
    region_shares: Any = 0.0
    regions: int = 0

    def add(self, levels: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
        """Add one image: levels [H, W] of its anomaly map, mask [H, W] with 0 sound, 1 defective, -1 unknown."""
        if (mask == UNKNOWN).all():
            return
        self.sound = self.sound + _count(levels[mask == 0])
        if (mask == 1).any():
            regions, count = ndimage.label(mask == 1, _ANY_NEIGHBOUR)
            share_per_pixel = 1.0 / np.maximum(np.bincount(regions.ravel()), 1)
            self.defective = self.defective + _count(levels[mask == 1])
            self.region_shares = self.region_shares + _count(levels[mask == 1], share_per_pixel[regions[mask == 1]])
            self.regions += count

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(
            self.sound + other.sound,
            self.defective + other.defective,
            self.region_shares + other.region_shares,
            self.regions + other.regions,
        )


def pixel_auroc(counts: PixelCounts) -> float:
    """Area under the ROC curve over all pixels; equal levels count as ties. NaN without defective regions."""
    if not counts.regions:
        return math.nan
    return float(auc(_above(counts.sound), _above(counts.defective)))


def region_overlap(counts: PixelCounts) -> float:
    """PRO: mean found share of each defective region, over pixel false-alarm rates up to 0.3; in [0, 1].

    Bergmann et al. 2020, arXiv:1911.02357. NaN without defective regions.
    """
    if not counts.regions:
        return math.nan
    false_alarms, overlap = _above(counts.sound), _above(counts.region_shares)
    within = false_alarms <= _PRO_LIMIT
    at_limit = np.interp(_PRO_LIMIT, false_alarms, overlap)
    area = auc(np.append(false_alarms[within], _PRO_LIMIT), np.append(overlap[within], at_limit))
    return float(area / _PRO_LIMIT)


def _count(levels: npt.NDArray[Any], weights: Any = None) -> Counts:
    return np.bincount(levels, weights, LEVELS).astype(np.float64)


def _above(counts: Counts) -> Counts:
    """Share of pixels above each level, from the highest level down: 0 ... 1."""
    return np.concatenate([[0.0], np.cumsum(counts[::-1]) / max(counts.sum(), 1e-300)])
