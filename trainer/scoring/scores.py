"""The anomaly scores, defined once for the Calibrator, the Evaluator and the served model. Higher is stranger.

A score is a pure function of an image, the autoencoder's outputs for it and numbers fitted to training images. The
threshold comes from held-out images only, so that no score is calibrated on images that it was fitted to.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]

from schema.signatures import FEATURE_ERROR, INSIDE, LATENT, RECONSTRUCTION
from trainer.scoring.error_maps import Tensors as Tensors
from trainer.scoring.error_maps import (
    centred,
    error_of,
    full_size_map,
    map_of,
    mean_of_worst,
    side_on_map,
    smoothed,
)
from trainer.scoring.learners import Fitted, Latents, Learner, ScoreError, StandardErrors, UsualErrors
from trainer.settings.calibration import CalibrationSettings, ScoreName

Batches = Callable[[], Iterator[tuple[tf.Tensor, Tensors]]]
"""Each call iterates from the start over batches of pixels [B, H, W, C] and the autoencoder's outputs for them."""
UnseenMaps: TypeAlias = Any
"""Error maps [n, h, w] of training images by models that were not fitted to them, or None: tf.Variable | None."""
_NEIGHBOURS = 5
_FAINT = 0.01
_SMALLEST = 1e-12
_QUIETEST = -3.0
_SSIM_WINDOW_PX = 7
_WORST_STANDARDISED_PERCENT = 1.0
_MAPS_AT_A_TIME = 64
_OF_RECONSTRUCTION: tuple[ScoreName, ...] = ("local_ssim", "blurred_error", "cosine_distance")
"""Scores that look at more than the error of each pixel."""


Compute = Callable[[tf.Tensor, Tensors, Any, CalibrationSettings], tf.Tensor]
"""Pixels [B, H, W, C], the autoencoder's outputs, fitted numbers and settings -> a tensor with B rows."""


@dataclass(frozen=True)
class Score:
    """`compute` gives the score [B]; `learn`: a new learner for batches like this one."""

    compute: Compute
    learn: Callable[[tf.Tensor, Tensors], Learner] | None = None
    """None: the score needs no fitted numbers."""
    anomaly_map: Compute | None = None
    """The map [B, h, w] whose mean, sum, maximum or worst positions are the score. None: the score has no map."""


def local_dissimilarity(image: tf.Tensor, reconstruction: tf.Tensor) -> tf.Tensor:
    """1 - SSIM of each window of 7 pixels (Wang et al. 2004; for anomalies Bergmann et al. 2019, arXiv:1807.02011)."""
    window_px = min(_SSIM_WINDOW_PX, image.shape[1], image.shape[2])
    return 1.0 - tf.image.ssim(image, reconstruction, max_val=1.0, filter_size=window_px, return_index_map=True)


def blurred(images: tf.Tensor, deviation_px: float) -> tf.Tensor:
    """Gaussian blur that mirrors images beyond their edges: [B, H, W, C] -> [B, H, W, C]."""
    if not deviation_px:
        return images
    down, across = (
        tf.constant(gaussian_filter1d(np.eye(side_px, dtype=np.float32), deviation_px, axis=0))
        for side_px in images.shape[1:3]
    )
    return tf.einsum("hi,wj,bijc->bhwc", down, across, images, optimize="optimal")


def _error(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    if FEATURE_ERROR in outputs:
        return tf.reduce_mean(outputs[FEATURE_ERROR], axis=[1, 2])
    return error_of(pixels, outputs)  # the same number in every output, to the last bit


def _worst_pixels(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return mean_of_worst(map_of(pixels, outputs), settings.worst_percent)


def _error_map(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return map_of(pixels, outputs)


def _patch_max(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return tf.reduce_max(_patches(pixels, outputs, fitted, settings), axis=[1, 2])


def _patches(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    maps = map_of(pixels, outputs)
    window = side_on_map(settings.patch_side_px(*pixels.shape[1:3]), pixels, maps)
    return smoothed(maps, window)


def _standardised_patch(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return mean_of_worst(_deviations(pixels, outputs, fitted, settings), _WORST_STANDARDISED_PERCENT)


def _deviations(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    maps = map_of(pixels, outputs)
    return (smoothed(maps, _small_window(pixels, maps)) - fitted["mean"]) / fitted["spread"]


def _learn_standard_errors(pixels: tf.Tensor, outputs: Tensors) -> Learner:
    return StandardErrors(_small_window(pixels, map_of(pixels, outputs)))


def _small_window(pixels: tf.Tensor, maps: tf.Tensor) -> tuple[int, int]:
    """A sixteenth of the image's shorter side, at least 3 pixels, on the maps."""
    shorter_px = min(pixels.shape[1:3])
    return side_on_map(min(max(3, round(shorter_px / 16)), shorter_px), pixels, maps)


def _local_ssim(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return mean_of_worst(_dissimilarities(pixels, outputs, fitted, settings), settings.worst_percent)


def _dissimilarities(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return local_dissimilarity(pixels, outputs[RECONSTRUCTION])


def _weighted_error(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return tf.reduce_mean(_weighted(pixels, outputs, fitted, settings), axis=[1, 2])


def _weighted(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return map_of(pixels, outputs) / fitted["usual"]


def _blurred_error(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return tf.reduce_mean(_blurred_errors(pixels, outputs, fitted, settings), axis=[1, 2])


def _blurred_errors(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    deviation_px = settings.blur_deviation_px(pixels.shape[1], pixels.shape[2])
    return tf.reduce_mean(tf.square(blurred(pixels - outputs[RECONSTRUCTION], deviation_px)), axis=3)


def _cosine_distance(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    """1 - cosine of the angle between the blurred images; ignores contrast and slightly displaced strokes."""
    return tf.reduce_sum(_squared_differences(pixels, outputs, settings), axis=1)


def _cosine_distances(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    of_values = _squared_differences(pixels, outputs, settings)[:, :-1]
    return tf.reduce_sum(tf.reshape(of_values, [-1, *pixels.shape[1:]]), axis=3)


def _squared_differences(pixels: tf.Tensor, outputs: Tensors, settings: CalibrationSettings) -> tf.Tensor:
    """Half the squared differences of the directions [B, H W C + 1]."""
    deviation_px = settings.blur_deviation_px(pixels.shape[1], pixels.shape[2])
    image, reconstruction = (_directions(blurred(one, deviation_px)) for one in (pixels, outputs[RECONSTRUCTION]))
    return tf.math.squared_difference(image, reconstruction) / 2.0


def _directions(images: tf.Tensor) -> tf.Tensor:
    """Unit vectors [B, H W C + 1]; the extra faint value gives black images a direction too."""
    flat = tf.reshape(images, [-1, int(np.prod(images.shape[1:]))])
    return tf.math.l2_normalize(tf.pad(flat, [[0, 0], [0, 1]], constant_values=_FAINT), axis=1)


def _latent_distance(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    """Squared Mahalanobis distance over the latent's size (Lee et al. 2018, arXiv:1807.03888)."""
    return tf.reduce_mean(tf.square(_whitened(outputs, fitted)), axis=1)


def _whitened(outputs: Tensors, fitted: Any) -> tf.Tensor:
    return tf.matmul(outputs[LATENT] - fitted["mean"], fitted["whitening"])


def _neighbour_distance(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    """Mean distance to the 5 nearest latents of the bank, whitened (cf. Sun et al. 2022, arXiv:2204.06507)."""
    return mean_distance_to_nearest(_whitened(outputs, fitted), fitted["bank"])


def mean_distance_to_nearest(points: tf.Tensor, bank: tf.Tensor) -> tf.Tensor:
    """Mean distance of points [B, Z] to their 5 nearest (or all, if fewer) of the bank [K, Z]: [B]."""
    squared = (
        tf.reduce_sum(tf.square(points), axis=1, keepdims=True)
        - 2.0 * tf.matmul(points, bank, transpose_b=True)
        + tf.reduce_sum(tf.square(bank), axis=1)
    )
    nearest = -tf.math.top_k(-squared, min(_NEIGHBOURS, bank.shape[0]), sorted=False).values
    return tf.reduce_mean(tf.sqrt(tf.maximum(nearest, 0.0)), axis=1)


def _ensemble(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    """Mean of the members' standardised logarithms, each at least -3 so that one low score cannot hide an alarm."""
    logs = _member_logs(pixels, outputs, fitted, settings)
    standardised = tf.maximum((logs - fitted["location"]) / fitted["spread"], _QUIETEST)
    return tf.reduce_mean(standardised, axis=1)


def _fit_ensemble(batches: Batches, settings: CalibrationSettings, unseen_maps: UnseenMaps) -> Fitted:
    """The members' own numbers, and mean and standard deviation of their logarithms.

    The latter come from images that the members were not fitted to, because an image in the bank of
    `neighbour_distance` is its own nearest neighbour. An overfitted network has smaller errors on all training images
    by a factor, which shifts the logarithms but changes no ranking.
    """
    of_members = fit_scores(settings.score_members, settings, _every_other(batches, 0), unseen_maps)
    fitted = {f"{name}.{key}": values for name, own in of_members.items() for key, values in own.items()}
    unseen = _every_other(batches, 1)
    logs = np.concatenate([_member_logs(pixels, outputs, fitted, settings).numpy() for pixels, outputs in unseen()])
    return {**fitted, "location": logs.mean(axis=0), "spread": logs.std(axis=0) + np.float32(1e-6)}


def _every_other(batches: Batches, first: int) -> Batches:
    """Every other image of each batch, starting with the index `first`."""
    return lambda: (
        (pixels[first::2], {name: values[first::2] for name, values in outputs.items()})
        for pixels, outputs in batches()
    )


def _member_logs(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    """Logarithms of the members' scores: [B, members]."""
    columns = []
    for name in settings.score_members:
        own = {key.removeprefix(f"{name}."): values for key, values in fitted.items() if key.startswith(f"{name}.")}
        columns.append(tf.math.log(tf.maximum(SCORES[name].compute(pixels, outputs, own, settings), _SMALLEST)))
    return tf.stack(columns, axis=1)


SCORES: dict[ScoreName, Score] = {
    "error": Score(_error, anomaly_map=_error_map),
    "worst_pixels": Score(_worst_pixels, anomaly_map=_error_map),
    "patch_max": Score(_patch_max, anomaly_map=_patches),
    "standardised_patch": Score(_standardised_patch, _learn_standard_errors, _deviations),
    "local_ssim": Score(_local_ssim, anomaly_map=_dissimilarities),
    "weighted_error": Score(_weighted_error, lambda pixels, outputs: UsualErrors(), _weighted),
    "blurred_error": Score(_blurred_error, anomaly_map=_blurred_errors),
    "cosine_distance": Score(_cosine_distance, anomaly_map=_cosine_distances),
    "latent_distance": Score(_latent_distance, lambda pixels, outputs: Latents(outputs, bank=False)),
    "neighbour_distance": Score(_neighbour_distance, lambda pixels, outputs: Latents(outputs, bank=True)),
    "ensemble": Score(_ensemble),
}


class FittedScore(tf.Module):
    """One score with its fitted numbers, as exportable functions of pixels and outputs: the score [B], and its map."""

    def __init__(self, name: ScoreName, settings: CalibrationSettings, fitted: Fitted) -> None:
        super().__init__()
        self._score = name
        self._settings = settings
        self._fitted = {key: tf.Variable(values, trainable=False) for key, values in fitted.items()}

    def __call__(self, pixels: tf.Tensor, outputs: Tensors) -> tf.Tensor:
        return SCORES[self._score].compute(pixels, outputs, self._fitted, self._settings)

    @property
    def sees_reconstruction(self) -> bool:
        """Whether the score needs the reconstruction itself, not only the error of each pixel."""
        members = self._settings.score_members if self._score == "ensemble" else (self._score,)
        return any(name in _OF_RECONSTRUCTION for name in members)

    @property
    def map_of(self) -> ScoreName:
        """The score whose map `anomaly_map` is: this one, or `error` if it has no map."""
        return "error" if SCORES[self._score].anomaly_map is None else self._score

    def anomaly_map(self, pixels: tf.Tensor, outputs: Tensors) -> tf.Tensor:
        """The score's map at the images' size [B, H, W], in the score's units; the error map if the score has none.

        What a window contributes is at its centre. Outside the region of interest it is 0.
        """
        own = SCORES[self._score].anomaly_map
        if own is None:
            return full_size_map(pixels, outputs)
        values = own(pixels, outputs, self._fitted, self._settings)
        whole = centred(values, _size_of_map(self._score, pixels, outputs), pixels.shape[1:3])
        return whole * outputs[INSIDE] if INSIDE in outputs else whole


def _size_of_map(name: ScoreName, pixels: tf.Tensor, outputs: Tensors) -> Any:
    """(height, width) of what the score's map looks at: the image, or the error map of the family."""
    return (pixels if name in _OF_RECONSTRUCTION else map_of(pixels, outputs)).shape[1:3]


def fit_score(
    name: ScoreName, settings: CalibrationSettings, batches: Batches, unseen_maps: UnseenMaps = None
) -> FittedScore:
    """A score fitted to training images; `unseen_maps` [n, h, w] replace their error maps where they are given."""
    if name == "ensemble":
        return FittedScore(name, settings, _fit_ensemble(batches, settings, unseen_maps))
    return FittedScore(name, settings, fit_scores([name], settings, batches, unseen_maps)[name])


def fit_scores(
    names: Iterable[ScoreName], settings: CalibrationSettings, batches: Batches, unseen_maps: UnseenMaps = None
) -> dict[ScoreName, Fitted]:
    """Several scores other than `ensemble`, fitted in one pass over the training images, or in none if none needs it.

    Raises ScoreError if one of them cannot be computed for this model.
    """
    learners: dict[ScoreName, Learner] = {}
    learning = {name: learn for name in names if (learn := SCORES[name].learn) is not None}
    for pixels, outputs in batches() if learning else ():
        learners = learners or {name: learn(pixels, outputs) for name, learn in learning.items()}
        from_images = [learner for learner in learners.values() if unseen_maps is None or not learner.of_maps]
        if not from_images:
            break
        for learner in from_images:
            learner.add(pixels, outputs)
    for start in range(0, 0 if unseen_maps is None else unseen_maps.shape[0], _MAPS_AT_A_TIME):
        for learner in learners.values():
            if learner.of_maps:
                learner.add(None, {FEATURE_ERROR: unseen_maps[start : start + _MAPS_AT_A_TIME]})
    return {name: learners[name].fitted() if name in learners else {} for name in names}


def computable(names: Iterable[ScoreName], pixels: tf.Tensor, outputs: Tensors) -> list[ScoreName]:
    """The scores that can be computed for a model with such outputs."""
    found: list[ScoreName] = []
    for name in names:
        learn = SCORES[name].learn
        try:
            if learn is not None:
                learn(pixels, outputs)
        except ScoreError:
            continue
        found.append(name)
    return found
