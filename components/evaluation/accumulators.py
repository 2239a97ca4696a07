"""Accumulators of a model's outputs, for the metrics: one for normal images, one for each label's anomalous ones."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from components.evaluation.pixel_metrics import PixelCounts
from schema.signatures import (
    DEVIATION,
    ERROR,
    ERROR_LEVELS,
    KL,
    LATENT,
    MASK_PIXELS,
    NOISE_ERRORS,
    PIXEL_VARIANCE,
    SCORE,
    SHUFFLED_ERROR,
    SSIM,
    THRESHOLD,
)

Values = npt.NDArray[np.float64]
Columns = dict[str, Values]
"""Name -> [N], one number per image."""
COLUMNS = (ERROR, SSIM, DEVIATION, SCORE, THRESHOLD, SHUFFLED_ERROR, PIXEL_VARIANCE, *NOISE_ERRORS, KL)
_BLOCK = 256
"""Images whose numbers are collected in lists before they become one array; small arrays need ten times the memory."""


@dataclass
class LatentMoments:
    """Count, sum [Z] and sum of outer products [Z, Z] of latents."""

    count: int = 0
    total: Any = 0.0
    products: Any = 0.0

    @staticmethod
    def of(latents: Values) -> "LatentMoments":
        """The moments of latents [N, Z]."""
        return LatentMoments(len(latents), latents.sum(axis=0), latents.T @ latents)

    def __add__(self, other: "LatentMoments") -> "LatentMoments":
        return LatentMoments(self.count + other.count, self.total + other.total, self.products + other.products)

    def covariance(self) -> Values:
        """The covariance matrix [Z, Z]."""
        mean = self.total / self.count
        covariance: Values = self.products / self.count - np.outer(mean, mean)
        return covariance


@dataclass
class ImageGroup:
    """Images of one kind: their numbers per image, pixel counts and latent moments."""

    blocks: list[npt.NDArray[np.float32]] = field(default_factory=list)
    """Each [N, len(COLUMNS)]; float32, like the model's outputs."""
    pixels: PixelCounts = field(default_factory=PixelCounts)
    latents: LatentMoments = field(default_factory=LatentMoments)
    _rows: list[list[float]] = field(default_factory=list)
    _latents: list[Values] = field(default_factory=list)

    def add(self, predictions: dict[str, Any]) -> None:
        """Add one image's outputs of the `examples` signature; outputs that an older model lacks become NaN."""
        self._rows.append([float(np.asarray(predictions.get(name, np.nan)).ravel()[0]) for name in COLUMNS])
        if ERROR_LEVELS in predictions:
            levels, mask = (np.squeeze(predictions[name]) for name in (ERROR_LEVELS, MASK_PIXELS))
            self.pixels.add(levels, mask)
        if LATENT in predictions:
            self._latents.append(np.asarray(predictions[LATENT], np.float64).ravel())
        if len(self._rows) >= _BLOCK:
            self.compact()

    def compact(self) -> None:
        """Compact the collected lists into arrays and moments."""
        if self._rows:
            self.blocks.append(np.array(self._rows, np.float32))
            self._rows = []
        if self._latents:
            self.latents = self.latents + LatentMoments.of(np.stack(self._latents))
            self._latents = []

    def __add__(self, other: "ImageGroup") -> "ImageGroup":
        self.compact()
        other.compact()
        return ImageGroup(self.blocks + other.blocks, self.pixels + other.pixels, self.latents + other.latents)

    @property
    def columns(self) -> Columns:
        """Name -> numbers of all images [N]."""
        self.compact()
        table = np.concatenate([np.zeros((0, len(COLUMNS))), *self.blocks])
        return {name: table[:, number] for number, name in enumerate(COLUMNS)}


@dataclass
class SliceImages:
    """The images of one slice."""

    normal: ImageGroup = field(default_factory=ImageGroup)
    """Images that are normal or not known to be anomalous."""
    anomalous: dict[str, ImageGroup] = field(default_factory=dict)
    """By label."""
    known_normal: bool = False
    """Whether at least one image is known to be normal."""

    def group(self, label: str, is_anomaly: int) -> ImageGroup:
        """The group of an image with this label and `is_anomaly` (1, 0 or -1)."""
        if is_anomaly == 1:
            return self.anomalous.setdefault(label, ImageGroup())
        self.known_normal = self.known_normal or is_anomaly == 0
        return self.normal

    def __add__(self, other: "SliceImages") -> "SliceImages":
        labels = {**self.anomalous, **other.anomalous}
        empty = ImageGroup()
        return SliceImages(
            self.normal + other.normal,
            {x: self.anomalous.get(x, empty) + other.anomalous.get(x, empty) for x in labels},
            self.known_normal or other.known_normal,
        )

    def anomalous_with(self, label: str | None) -> ImageGroup:
        """The anomalous images of one label, or of all."""
        chosen = [group for name, group in self.anomalous.items() if label in (None, name)]
        return sum(chosen, ImageGroup())
