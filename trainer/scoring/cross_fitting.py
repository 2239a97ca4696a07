"""Calibration with few images: every image trains, and every image is scored by a fit without it.

Cross-conformal prediction (Vovk 2015, arXiv:1208.0806; Barber et al. 2021, arXiv:1905.02928). The threshold applies to
the model that was fitted to all images, as the jackknife's does: it holds as far as leaving out a fold changes the
scores of other images little.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from schema.signatures import FEATURE_ERROR, RECONSTRUCTION
from trainer.scoring.learners import ScoreError
from trainer.scoring.scores import FittedScore, fit_scores
from trainer.settings.calibration import FEW_IMAGES, CalibrationSettings, ScoreName

OF_MAPS: tuple[ScoreName, ...] = ("worst_pixels", "error", "patch_max", "standardised_patch", "weighted_error")
"""Scores that depend on nothing but the error map. With few images, `auto` means the first."""


def cross_fitted_scores(
    name: ScoreName, settings: CalibrationSettings, unseen_maps: tf.Tensor, shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(score [n], largest value of its map [n]) of each image of this shape, given the error maps [n, h, w] of fits
    without the image.

    What a score learns from error maps, it learns without the image's own. Raises ScoreError for scores that need more
    than the error map.
    """
    if name not in OF_MAPS:
        raise ScoreError(
            f"evaluation.score {name} cannot be calibrated with fewer than {FEW_IMAGES} images, because it needs more "
            f"than the error map; use auto, {', '.join(OF_MAPS[:-1])} or {OF_MAPS[-1]}, or add images"
        )
    scores, peaks = np.empty((2, unseen_maps.shape[0]), np.float32)
    for row in range(len(scores)):
        own = inputs_of_maps(unseen_maps[row : row + 1], shape)
        others = tf.concat([unseen_maps[:row], unseen_maps[row + 1 :]], axis=0)
        fitted = fit_scores([name], settings, lambda own=own: iter([own]), others)[name]  # type: ignore[misc]
        score = FittedScore(name, settings, fitted)
        scores[row], peaks[row] = score(*own).numpy()[0], score.anomaly_map(*own).numpy().max()
    return scores, peaks


def inputs_of_maps(maps: tf.Tensor, shape: Sequence[int]) -> tuple[tf.Tensor, dict[str, Any]]:
    """Pixels, which only matter for their size, and the autoencoder's outputs."""
    blank = tf.zeros((maps.shape[0], *shape))
    return blank, {FEATURE_ERROR: maps, RECONSTRUCTION: blank}
