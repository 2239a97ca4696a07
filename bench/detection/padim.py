"""PaDiM: a Gaussian for each position of the feature map (Defard et al. 2020, arXiv:2011.08785).

The backbone is this project's, so all its 176 features are used, where the paper draws some of more than 400 at random.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.detection.feature_maps import Features, enlarged, joined_maps
from bench.detection.method import Detector, Findings, TrainingBatches
from bench.detection.tasks import Floats

_REGULARISATION = 0.01
"""The paper's epsilon: added to the covariances' diagonals."""


@dataclass(frozen=True)
class Gaussians:
    """For each of P positions a mean [P, D] and the inverse [P, D, D] of a covariance."""

    means: Floats
    inverses: Floats

    def distances(self, features: Floats) -> Floats:
        """[B, P, D] -> Mahalanobis distances [B, P]."""
        centred = np.swapaxes(features - self.means, 0, 1)
        squared = np.einsum("pbd,pbd->bp", centred @ self.inverses, centred)
        return np.sqrt(np.maximum(squared, 0.0))


@dataclass(frozen=True)
class Padim:
    """The largest smoothed distance of an image."""

    features: Features
    gaussians: Gaussians

    def __call__(self, pixels: Floats) -> Findings:
        features = self.features(pixels)
        distances = self.gaussians.distances(_by_position(features)).reshape(features.shape[:3])
        maps = enlarged(distances, pixels.shape[1:3])
        return Findings(maps.max(axis=(1, 2)), maps)


def fit_padim(training: TrainingBatches, seed: int) -> Detector:
    """Needs two passes and memory for one covariance per position; nothing is random, so the seed is not used."""
    features = joined_maps()
    return Padim(features, gaussians_of(lambda: (_by_position(features(pixels)) for pixels in training())))


def gaussians_of(passes: TrainingBatches) -> Gaussians:
    """Gaussians of features [B, P, D] that come in batches, one pass for the means and one for the covariances."""
    count, total = 0, np.zeros(())
    for features in passes():
        count, total = count + len(features), total + features.sum(axis=0, dtype=np.float64)
    means = (total / count).astype(np.float32)
    covariances: npt.NDArray[np.float32] = np.zeros((*means.shape, means.shape[1]), np.float32)
    for features in passes():
        centred = np.swapaxes(features - means, 0, 1)
        covariances += np.swapaxes(centred, 1, 2) @ centred
    covariances /= count - 1
    covariances += _REGULARISATION * np.eye(means.shape[1], dtype=np.float32)
    for position, covariance in enumerate(covariances):  # one by one: all at once would need twice the memory
        covariances[position] = np.linalg.inv(covariance.astype(np.float64))
    return Gaussians(means, covariances)


def _by_position(features: Floats) -> Floats:
    return features.reshape(len(features), -1, features.shape[-1])
