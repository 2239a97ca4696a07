"""How well a method's scores and maps separate defects from what is sound, in bounded memory."""

import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from bench.detection.method import Findings
from bench.detection.tasks import Batch, Floats
from bench.timing import BenchmarkError
from components.evaluation.metrics import recall_at
from components.evaluation.pixel_metrics import LEVELS, PixelCounts, pixel_auroc, region_overlap
from schema.signatures import ERROR, SCORE

_SAMPLED_PIXELS = 2**21
"""Pixels among which the levels are chosen."""


@dataclass(frozen=True)
class Quality:
    """Numbers in [0, 1]; those of pixels are NaN for a method without maps and for a task without masks."""

    image_auroc: float
    recall_at_1: float
    """Share of the defective images found at a false-alarm rate of at most 1 % of the sound test images."""
    recall_at_5: float
    pixel_auroc: float
    region_overlap: float


def measure_quality(batches: Iterable[Batch], detect: Callable[[Batch], Findings]) -> Quality:
    """Quality of what `detect` finds in the test images. The maps are kept in a file until all are known."""
    scores, is_anomaly = [], []
    with tempfile.TemporaryDirectory() as folder:
        stored = _StoredMaps(Path(folder))
        for batch in batches:
            findings = detect(batch)
            for values in (findings.scores, findings.maps):
                if values is not None and not np.isfinite(values).all():
                    raise BenchmarkError("a score or a map is not finite, so nothing can be compared with it")
            if findings.maps is not None:
                stored.add(findings.maps, batch.masks)
            scores.append(findings.scores)
            is_anomaly.append(batch.is_anomaly)
        counts = stored.counts()
    all_scores, anomalous = np.concatenate(scores).astype(np.float64), np.concatenate(is_anomaly) == 1
    groups = [{ERROR: group, SCORE: group} for group in (all_scores[~anomalous], all_scores[anomalous])]
    return Quality(
        float(roc_auc_score(anomalous, all_scores)),
        recall_at(0.01, *groups),
        recall_at(0.05, *groups),
        pixel_auroc(counts) if counts else math.nan,
        region_overlap(counts) if counts else math.nan,
    )


class _StoredMaps:
    """Maps and masks in two files."""

    def __init__(self, folder: Path) -> None:
        self._maps, self._masks = folder / "maps", folder / "masks"
        self._shape: tuple[int, ...] = (0,)

    def add(self, maps: Floats, masks: npt.NDArray[np.int8]) -> None:
        with self._maps.open("ab") as file:
            file.write(np.ascontiguousarray(maps, np.float32).data)
        with self._masks.open("ab") as file:
            file.write(np.ascontiguousarray(masks, np.int8).data)
        self._shape = (self._shape[0] + len(maps), *maps.shape[1:])

    def counts(self) -> PixelCounts | None:
        """Counts of pixels for each level of the maps; None if there are no maps.

        The levels' limits are quantiles of the values, so any range, sign and unit will do.
        """
        if not self._maps.exists():
            return None
        maps: Any = np.memmap(self._maps, np.float32, "r", shape=self._shape)
        masks: Any = np.memmap(self._masks, np.int8, "r", shape=self._shape)
        limits = _limits(maps.reshape(-1))
        counts = PixelCounts()
        for one, mask in zip(maps, masks, strict=True):
            counts.add(np.searchsorted(limits, one, side="right"), mask)
        return counts


def _limits(values: Floats) -> Floats:
    """At most LEVELS - 1 ascending values; all distinct ones if there are few."""
    if values.size > _SAMPLED_PIXELS:
        values = values[np.sort(np.random.default_rng(0).integers(values.size, size=_SAMPLED_PIXELS))]
    return np.unique(np.quantile(values, np.linspace(0.0, 1.0, LEVELS - 1), method="nearest"))
