"""The anomaly threshold: a conformal quantile of the scores of held-out normal images."""

import math

import numpy as np
import numpy.typing as npt


class TooFewImagesError(Exception):
    """The false-alarm rate asked for needs more held-out images; the message says how many."""


def images_needed(false_alarm_rate: float) -> int:
    """The fewest held-out normal images for which the rate can be guaranteed."""
    return math.ceil(1.0 / false_alarm_rate - 1e-9) - 1


def check_image_count(image_count: int, false_alarm_rate: float) -> None:
    """Raise TooFewImagesError where no finite threshold keeps the rate."""
    needed = images_needed(false_alarm_rate)
    if image_count < needed:
        raise TooFewImagesError(
            f"evaluation.false_alarm_rate {false_alarm_rate} needs at least {needed} images in split 'eval', which "
            f"holds {image_count}: add images, raise data.eval_fraction, or set evaluation.false_alarm_rate to "
            f"{math.ceil(1e4 / (image_count + 1)) / 1e4} or more"
        )


def conformal_threshold(scores: npt.NDArray[np.float32], false_alarm_rate: float) -> float:
    """The threshold that a fresh normal image's score exceeds with probability at most `false_alarm_rate`.

    Split conformal prediction (Vovk, Gammerman & Shafer 2005; Angelopoulos & Bates 2021, arXiv:2107.07511):
    the ceil((n + 1)(1 - rate))-th smallest of `scores` [n]. It holds for exchangeable images, without any
    assumption on their distribution.
    """
    check_image_count(len(scores), false_alarm_rate)
    rank = math.ceil((len(scores) + 1) * (1.0 - false_alarm_rate) - 1e-9)
    return float(np.sort(scores)[rank - 1])
