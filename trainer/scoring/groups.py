"""`evaluation.groups`: product variants that differ in how well they are reconstructed, each with its own threshold.

With one threshold for all, the variant that is hardest to reconstruct determines it, and hides the others' defects.
Conformal prediction by groups is called Mondrian: Vovk, Lindsay, Nouretdinov & Gammerman 2003, "Mondrian Confidence
Machine". It keeps its guarantee in each group, because an image's group is a function of the image alone: the same
function, the latent's linear discriminant analysis, assigns held-out and new images.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from schema.calibration_record import GroupRecord
from schema.signatures import LATENT
from trainer.scoring.calibration import Limits, limits_of
from trainer.scoring.error_maps import Tensors
from trainer.scoring.learners import ScoreError
from trainer.scoring.scores import FittedScore
from trainer.settings.calibration import CalibrationSettings, GroupColumn

_FEWEST = 2
"""Held-out images of a group, without which it has no threshold."""
_SMALLEST = 1e-12
_HOW_TO_NAME: dict[GroupColumn, str] = {
    "label": "put each variant in a folder of its own (or in the manifest's column `label`) and list them in "
    "data.normal_labels",
    "group": "name each image's variant in the manifest's column `group`",
}

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


class Groups(tf.Module):
    """Latents [B, Z] -> the number [B] int32 of each image's group, one of `names`."""

    def __init__(self, latents: Floats, groups: Sequence[str], *, by: GroupColumn) -> None:
        """Fit to training images: latents [n, Z] and their groups [n], which the column `by` names.

        Images whose `group` is empty are left out. Raises ScoreError unless there are two groups, each with two images.
        """
        super().__init__()
        of_image = np.array(groups, dtype=object)
        known = of_image != "" if by == "group" else np.full(len(of_image), True)
        self.names, counts = (values.tolist() for values in np.unique(of_image[known], return_counts=True))
        if len(self.names) < 2:
            raise ScoreError(
                f"evaluation.groups: {by}, but {_of_all(by, self.names)}: {_HOW_TO_NAME[by]}, or remove "
                "evaluation.groups"
            )
        if min(counts) < _FEWEST:
            raise ScoreError(
                f"evaluation.groups: {by}, but there is one training image of {self.names[int(np.argmin(counts))]!r}; "
                "add images, or leave it out"
            )
        discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        discriminant.fit(latents[known].astype(np.float64), of_image[known].astype(str))
        kernel, bias = discriminant.coef_, discriminant.intercept_
        if len(self.names) == 2:  # scikit-learn keeps the difference between the two
            kernel, bias = np.stack([-kernel[0], kernel[0]]), np.array([-bias[0], bias[0]])
        self._kernel = tf.Variable(kernel.T.astype(np.float32), trainable=False)
        self._bias = tf.Variable(bias.astype(np.float32), trainable=False)

    def __call__(self, latents: tf.Tensor) -> tf.Tensor:
        return tf.argmax(tf.matmul(latents, self._kernel) + self._bias, axis=1, output_type=tf.int32)


def _of_all(by: GroupColumn, names: Sequence[str]) -> str:
    return f"all training images have the {by} {names[0]!r}" if names else "no training image has a group"


class GroupedScore(tf.Module):
    """A score in units of its group: 0 for the median of held-out normal images, 1 at the group's threshold.

    Its anomaly map is in multiples of the group's pixel threshold.
    """

    def __init__(self, score: FittedScore, groups: Groups, records: Sequence[GroupRecord]) -> None:
        """`records`: of each group, in the order of `groups.names`."""
        super().__init__()
        self.ungrouped, self.groups = score, groups
        self.map_of = score.map_of
        self._typical, self._distance, self._pixel_threshold = (
            tf.Variable(values, trainable=False, dtype=tf.float32)
            for values in (
                [of.typical for of in records],
                [max(of.threshold - of.typical, _SMALLEST) for of in records],
                map_units(records),
            )
        )

    def __call__(self, pixels: tf.Tensor, outputs: Tensors) -> tf.Tensor:
        return self.in_units(self.ungrouped(pixels, outputs), self.group_of(outputs))

    def group_of(self, outputs: Tensors) -> tf.Tensor:
        """The number [B] of each image's group, given the autoencoder's outputs."""
        return self.groups(outputs[LATENT])

    def in_units(self, scores: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        """Scores [B] of images of these groups [B]."""
        return (scores - tf.gather(self._typical, group)) / tf.gather(self._distance, group)

    def anomaly_map(self, pixels: tf.Tensor, outputs: Tensors) -> tf.Tensor:
        """[B, H, W]."""
        threshold = tf.gather(self._pixel_threshold, self.group_of(outputs))
        return self.ungrouped.anomaly_map(pixels, outputs) / threshold[:, tf.newaxis, tf.newaxis]


def records_of(
    names: Sequence[str],
    group: Numbers,
    scores: Floats,
    peaks: Floats,
    settings: CalibrationSettings,
) -> tuple[GroupRecord, ...]:
    """The record of each group, from the scores and the maps' largest values [n] of held-out images of `group` [n].

    Raises ScoreError for a group that has fewer than two held-out images.
    """
    found = []
    for number, name in enumerate(names):
        own = group == number
        if np.count_nonzero(own) < _FEWEST:
            raise ScoreError(
                f"evaluation.groups: {np.count_nonzero(own)} held-out images look like {name!r}, which is too few for "
                "a threshold; add images of it, raise data.eval_fraction, or remove evaluation.groups"
            )
        limits = asdict(limits_of(settings, scores[own], peaks[own]))
        images, typical = int(np.count_nonzero(own)), float(np.median(scores[own]))
        found.append(GroupRecord(name=name, images=images, typical=typical, **limits))
    return tuple(found)


def map_units(records: Sequence[GroupRecord]) -> list[float]:
    """What each group's maps are divided by: its pixel threshold, or a little more than 0."""
    return [max(of_group.pixel_threshold, _SMALLEST) for of_group in records]


def limits_in_units(records: Sequence[GroupRecord]) -> Limits:
    """The limits that apply in all groups: 1 in their units, and the highest of the rates."""
    rate, pixel_rate = max(r.false_alarm_rate for r in records), max(r.pixel_false_alarm_rate for r in records)
    return Limits(1.0, rate, 1.0, pixel_rate)


def by_group(group: tf.Tensor, of_each: Sequence[Callable[[], tf.Tensor]]) -> tf.Tensor:
    """[B]: of the tensors [B] that `of_each` returns, one for each group, the value of the image's own `group` [B]."""
    values: Any = of_each[0]()
    for number, of_group in enumerate(of_each[1:], 1):
        values = tf.where(group == number, of_group(), values)
    return values
