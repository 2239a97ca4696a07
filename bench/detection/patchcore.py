"""PatchCore: distances from a coreset of normal patches (Roth et al. 2022, arXiv:2106.08265).

As in the paper except for the backbone, and without the reweighting of the image's score by its neighbours' density.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.detection.feature_maps import Features, enlarged, joined_maps
from bench.detection.method import Detector, Findings, TrainingBatches
from bench.detection.tasks import Floats

_POOL = 250_000
"""Patches among which the coreset is chosen; from more, so many are drawn at random."""
_SHARE, _MOST = 0.1, 10_000
_PROJECTED = 128


@dataclass(frozen=True)
class PatchCore:
    """The largest distance of an image's patches from their nearest in the coreset; the map is smoothed."""

    features: Features
    coreset: Floats

    def __call__(self, pixels: Floats) -> Findings:
        features = self.features(pixels)
        patches = features.reshape(len(features), -1, features.shape[-1])
        distances = np.stack([nearest_distances(of_image, self.coreset) for of_image in patches])
        maps = enlarged(distances.reshape(features.shape[:3]), pixels.shape[1:3])
        return Findings(distances.max(axis=1), maps)


def fit_patchcore(training: TrainingBatches, seed: int) -> Detector:
    random = np.random.default_rng(seed)
    features = joined_maps(local_mean=True)
    pool = _drawn((features(pixels) for pixels in training()), random)
    count = min(_MOST, max(1, int(_SHARE * len(pool))))
    chosen = greedy_coreset(_projected(pool, random), count, first=int(random.integers(len(pool))))
    return PatchCore(features, pool[chosen])


def greedy_coreset(points: Floats, count: int, *, first: int) -> npt.NDArray[np.int64]:
    """Indices of `count` of the points [N, D]: after `first`, always the one that is farthest from those chosen."""
    squares = np.einsum("nd,nd->n", points, points)
    chosen = [first]
    distances = np.full(len(points), np.inf, np.float32)
    while len(chosen) < count:
        last = chosen[-1]
        np.minimum(distances, squares - 2.0 * (points @ points[last]) + squares[last], out=distances)
        distances[last] = -np.inf  # rounding must not choose it again
        chosen.append(int(np.argmax(distances)))
    return np.array(chosen)


def nearest_distances(points: Floats, among: Floats) -> Floats:
    """Euclidean distances [N] of points [N, D] from their nearest in [M, D]."""
    squared = (points**2).sum(axis=1)[:, np.newaxis] - 2.0 * points @ among.T + (among**2).sum(axis=1)
    return np.sqrt(np.maximum(squared.min(axis=1), 0.0))


def _drawn(batches: Iterator[Floats], random: np.random.Generator) -> Floats:
    """The patches [N, D] of all batches [B, h, w, D], or _POOL of them.

    Every patch is kept with equal probability: Vitter 1985, algorithm R, doi:10.1145/3147.3165.
    """
    pool, seen = np.empty((0, 0), np.float32), 0
    for batch in batches:
        patches = batch.reshape(-1, batch.shape[-1])
        if not seen:
            pool = np.empty((_POOL, patches.shape[1]), np.float32)
        numbers = np.arange(seen, seen + len(patches))
        places = np.where(numbers < _POOL, numbers, random.integers(numbers + 1))
        pool[places[places < _POOL]] = patches[places < _POOL]
        seen += len(patches)
    return pool[:seen]


def _projected(points: Floats, random: np.random.Generator) -> Floats:
    """At most _PROJECTED dimensions, with nearly the same distances (Johnson and Lindenstrauss 1984)."""
    dimensions = points.shape[1]
    if dimensions <= _PROJECTED:
        return points
    return points @ (random.standard_normal((dimensions, _PROJECTED)) / np.sqrt(_PROJECTED)).astype(np.float32)
