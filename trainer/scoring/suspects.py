"""Suspects: the training images that a model explains worst. A folder of good images often contains a few defects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.scoring.cross_fitting import OF_MAPS, inputs_of_maps
from trainer.scoring.scores import Batches, FittedScore, fit_score
from trainer.settings.calibration import CalibrationSettings, ScoreName

_LISTED_SHARE, _LISTED_AT_LEAST, _LISTED_AT_MOST = 0.05, 12, 1000
_MAPS_AT_A_TIME = 64
_HIGHEST = np.finfo(np.float32).max
"""Stands for a score that is not finite, because JSON has no infinity."""
_NORMAL_CONSISTENT = 1.4826
"""A normal distribution's standard deviation in terms of its median absolute deviation (Hampel 1974)."""


@dataclass(frozen=True)
class Suspect:
    """One of `of` images: `index` is its position among them, `rank` is 1 for the highest score.

    `p_value` is the share of the images with a score at least as high; `deviations` from the median score, in units of
    a robust standard deviation, tell whether an image stands out.
    """

    index: int
    rank: int
    of: int
    score: float
    p_value: float
    deviations: float


def rank_suspects(scores: npt.NDArray[np.float32]) -> list[Suspect]:
    """The 5 % of the images with the highest scores [n], at least 12 and at most 1,000.

    A score that is not finite ranks highest.
    """
    finite = np.where(np.isfinite(scores), scores, _HIGHEST).astype(np.float64)
    count = len(finite)
    median = np.median(finite)
    spread = _NORMAL_CONSISTENT * np.median(np.abs(finite - median)) or finite.std() or 1.0
    ascending = np.sort(finite)
    listed = min(count, max(_LISTED_AT_LEAST, min(_LISTED_AT_MOST, round(_LISTED_SHARE * count))))
    return [
        Suspect(
            index=int(index),
            rank=rank,
            of=count,
            score=float(finite[index]),
            p_value=float((count - np.searchsorted(ascending, finite[index], side="left")) / count),
            deviations=float((finite[index] - median) / spread),
        )
        for rank, index in enumerate(np.argsort(-finite, kind="stable")[:listed], 1)
    ]


def score_of_maps(
    name: ScoreName, score: FittedScore, settings: CalibrationSettings, batches: Batches, unseen_maps: tf.Tensor
) -> tuple[ScoreName, FittedScore]:
    """The score that decides if it depends on the error map alone, otherwise `standardised_patch`."""
    if name in OF_MAPS:
        return name, score
    return "standardised_patch", fit_score("standardised_patch", settings, batches, unseen_maps)


def scores_of_maps(score: FittedScore, maps: tf.Tensor, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """The score [n] of error maps [n, h, w] of images of this shape."""
    starts = range(0, maps.shape[0], _MAPS_AT_A_TIME)
    parts = [score(*inputs_of_maps(maps[start : start + _MAPS_AT_A_TIME], shape)).numpy() for start in starts]
    return np.concatenate(parts)
