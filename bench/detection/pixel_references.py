"""References on raw pixels: principal components, and nearest neighbours among their coefficients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from bench.detection.method import Detector, Findings, TrainingBatches
from bench.detection.tasks import Floats

_NEIGHBOUR_COMPONENTS = 16


@dataclass(frozen=True)
class PrincipalComponents:
    """The squared error of an image's projection; the score is its mean over the pixels."""

    pca: Any

    def __call__(self, pixels: Floats) -> Findings:
        flat = pixels.reshape(len(pixels), -1)
        errors = (flat - self.pca.inverse_transform(self.pca.transform(flat))) ** 2
        maps = errors.reshape(pixels.shape).mean(axis=-1)
        return Findings(maps.mean(axis=(1, 2)), maps)


@dataclass(frozen=True)
class NearestNeighbour:
    """The Euclidean distance from the nearest training image, in coefficients of principal components."""

    pca: Any
    neighbours: Any

    def __call__(self, pixels: Floats) -> Findings:
        coefficients = self.pca.transform(pixels.reshape(len(pixels), -1))
        return Findings(self.neighbours.kneighbors(coefficients, 1)[0][:, 0], None)


def fit_principal_components(training: TrainingBatches, seed: int, *, components: int) -> Detector:
    """At most one component fewer than there are images: as many would reproduce each of them exactly."""
    return PrincipalComponents(_pca(_flat(training), components, seed))


def fit_nearest_neighbour(training: TrainingBatches, seed: int) -> Detector:
    images = _flat(training)
    pca = _pca(images, _NEIGHBOUR_COMPONENTS, seed)
    return NearestNeighbour(pca, NearestNeighbors().fit(pca.transform(images)))


def _flat(training: TrainingBatches) -> Floats:
    return np.concatenate([pixels.reshape(len(pixels), -1) for pixels in training()])


def _pca(images: Floats, components: int, seed: int) -> Any:
    return PCA(min(components, len(images) - 1), svd_solver="randomized", random_state=seed).fit(images)
