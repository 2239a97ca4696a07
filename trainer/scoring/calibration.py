"""Conformal calibration: thresholds and p-values from the scores of held-out normal images."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from schema.calibration_record import conformal_rank
from trainer.settings.calibration import CalibrationSettings

_FAR = 0.1
"""A gap below a few scores, as a share of the threshold's distance from the median, that matters."""
_BY_CHANCE = 0.005
"""Probability that scores of one kind have a larger gap, over all that are looked at."""
_SINGLE_PRECISION = 1e-7
"""Bound on the rounding error of a rate given as float32."""


def images_needed(false_alarm_rate: float) -> int:
    """The smallest number of held-out normal images that can guarantee the rate."""
    return math.ceil(1.0 / false_alarm_rate - 1e-9) - 1


def attainable_rate(image_count: int, false_alarm_rate: float) -> float:
    """The rate itself, or the lowest that so many images can guarantee: 1 / (n + 1)."""
    return max(false_alarm_rate, 1.0 / (image_count + 1))


def conformal_threshold(scores: npt.NDArray[np.float32], false_alarm_rate: float) -> float:
    """The threshold that the score of a new normal image exceeds with probability at most `false_alarm_rate`.

    Split conformal prediction (Vovk, Gammerman & Shafer 2005; Angelopoulos & Bates 2021, arXiv:2107.07511):
    the ceil((n + 1)(1 - rate))-th smallest of `scores` [n]. The guarantee needs exchangeable images, but no assumption
    about their distribution, and a rate of at least 1 / (n + 1).
    """
    return float(np.sort(scores)[conformal_rank(len(scores), false_alarm_rate) - 1])


@dataclass(frozen=True)
class Limits:
    """Thresholds of a score and of its map, and the rates at which normal images exceed them."""

    threshold: float
    false_alarm_rate: float
    pixel_threshold: float
    pixel_false_alarm_rate: float


def limits_of(settings: CalibrationSettings, scores: npt.NDArray[np.float32], peaks: npt.NDArray[np.float32]) -> Limits:
    """The limits from the scores of normal images and the largest values of their maps [n], at attainable rates."""
    rate = attainable_rate(len(scores), settings.false_alarm_rate)
    pixel_rate = attainable_rate(len(peaks), settings.pixel_false_alarm_rate or settings.false_alarm_rate)
    return Limits(conformal_threshold(scores, rate), rate, conformal_threshold(peaks, pixel_rate), pixel_rate)


def rests_on_few_images(scores: npt.NDArray[np.float32], rate: float) -> tuple[npt.NDArray[np.int64], float] | None:
    """(the images that determine the conformal threshold at `rate`, the strangest first; the threshold without them).

    None if no few images do. They do if they are at most a tenth of all [n], or one; if the threshold is the score of
    one of them; and if their scores are farther above the others than scores of one kind are by chance. Those have a
    tail no heavier than an exponential one; then, below the k highest scores, k times the gap is distributed like the
    excess over the median (Rényi 1953, doi:10.1007/BF02127580).
    """
    if len(scores) < 3:
        return None
    threshold, strangest_first = conformal_threshold(scores, rate), np.argsort(-scores, kind="stable")
    descending, median = scores[strangest_first], float(np.median(scores))
    candidates = [few for few in range(max(1, len(scores) // 10), 0, -1) if descending[few - 1] <= threshold]
    for few in candidates:
        others, gap = descending[few:], float(descending[few - 1] - descending[few])
        excess = float(np.maximum(others - median, 0.0).sum()) / max(1, int(np.count_nonzero(others > median)))
        by_chance = excess / few * math.log(len(candidates) / _BY_CHANCE)
        if gap > max(by_chance, _FAR * (threshold - median)):
            return strangest_first[:few], conformal_threshold(others, attainable_rate(len(others), rate))
    return None


def p_values(held_out_scores: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Conformal p-values of `scores` [B]: (1 + number of held-out scores that are at least as high) / (n + 1).

    `held_out_scores` [n] must ascend. A p-value is at most a rate exactly if the score exceeds `conformal_threshold`.
    """
    count = tf.cast(tf.size(held_out_scores), tf.float32)
    if scores.shape[0] == 1:  # without a search, which not every runtime has
        at_least = tf.reduce_sum(tf.cast(held_out_scores >= scores, tf.float32), keepdims=True)
    else:
        at_least = count - tf.cast(tf.searchsorted(held_out_scores, scores, side="left"), tf.float32)
    return (1.0 + at_least) / (count + 1.0)


def thresholds_at(held_out_scores: tf.Tensor, false_alarm_rates: tf.Tensor) -> tf.Tensor:
    """`conformal_threshold` as TensorFlow code, for rates [B]; infinite if there are too few scores [n] for a rate."""
    padded = tf.concat([held_out_scores, [math.inf]], axis=0)
    share = 1.0 - tf.cast(false_alarm_rates, tf.float64)
    scaled = tf.cast(tf.size(padded), tf.float64) * share
    rank = tf.cast(tf.math.ceil(scaled - _SINGLE_PRECISION * tf.cast(tf.size(padded), tf.float64)), tf.int32)
    return tf.gather(padded, tf.clip_by_value(rank, 1, tf.size(padded)) - 1)


def thinned(ascending: npt.NDArray[np.float32], count: int) -> tuple[float, ...]:
    """At most `count` of the scores, evenly spaced in rank, including the smallest and the largest."""
    ranks = np.linspace(0, len(ascending) - 1, min(count, len(ascending))).round().astype(int)
    return tuple(map(float, ascending[ranks]))
