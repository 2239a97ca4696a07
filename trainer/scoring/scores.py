"""The anomaly scores, defined once for the Calibrator, the Evaluator and the served model. Higher is stranger.

A score is a pure function of an image, the autoencoder's outputs for it and numbers fitted to training images. The
threshold comes from held-out images only, so that no score is calibrated on images that it was fitted to.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]
from sklearn.covariance import LedoitWolf

from runtime.errors import UserError
from schema.signatures import LATENT, RECONSTRUCTION
from trainer.scoring.losses import error_map, error_per_image
from trainer.settings.calibration import CalibrationSettings

Tensors = dict[str, tf.Tensor]
Fitted = dict[str, npt.NDArray[np.float32]]
Batches = Callable[[], Iterator[tuple[tf.Tensor, Tensors]]]
"""Each call iterates from the start over batches of pixels [B, H, W, C] and the autoencoder's outputs for them."""
_MAX_LATENT = 4096
_BANK = 2048
_NEIGHBOURS = 5
_FAINT = 0.01
_SMALLEST = 1e-12
_QUIETEST = -3.0
_SSIM_WINDOW_PX = 7


class ScoreError(UserError):
    """The configured score cannot be computed for this model; the message says what to change."""


@dataclass(frozen=True)
class Score:
    """`compute`: pixels, outputs, fitted numbers, settings -> [B]; `fit`: images, settings -> fitted numbers."""

    compute: Callable[[tf.Tensor, Tensors, Any, CalibrationSettings], tf.Tensor]
    fit: Callable[[Batches, CalibrationSettings], Fitted] = lambda batches, settings: {}


def mean_of_worst(values: tf.Tensor, percent: float) -> tf.Tensor:
    """Mean of the largest `percent` % (at least one) of each row's values: [B, ...] -> [B]."""
    flat = tf.reshape(values, [-1, int(np.prod(values.shape[1:]))])
    count = max(1, round(flat.shape[1] * percent / 100.0))
    return tf.reduce_mean(tf.math.top_k(flat, count, sorted=False).values, axis=1)


def smoothed(maps: tf.Tensor, side_px: int) -> tf.Tensor:
    """Means over all squares with sides of `side_px` inside the maps: [B, H, W] -> [B, H', W']."""
    return tf.nn.avg_pool2d(maps[..., tf.newaxis], side_px, strides=1, padding="VALID")[..., 0]


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
    return error_per_image(pixels, outputs[RECONSTRUCTION])


def _worst_pixels(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return mean_of_worst(error_map(pixels, outputs[RECONSTRUCTION]), settings.worst_percent)


def _patch_max(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    maps = error_map(pixels, outputs[RECONSTRUCTION])
    return tf.reduce_max(smoothed(maps, settings.patch_side_px(maps.shape[1], maps.shape[2])), axis=[1, 2])


def _local_ssim(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return mean_of_worst(local_dissimilarity(pixels, outputs[RECONSTRUCTION]), settings.worst_percent)


def _weighted_error(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return tf.reduce_mean(error_map(pixels, outputs[RECONSTRUCTION]) / fitted["usual"], axis=[1, 2])


def _fit_weighted_error(batches: Batches, settings: CalibrationSettings) -> Fitted:
    """Each pixel's usual error plus the mean of all, which bounds the weight of pixels that never had an error."""
    total, count = np.zeros(()), 0
    for pixels, outputs in batches():
        maps = error_map(pixels, outputs[RECONSTRUCTION]).numpy()
        total, count = total + maps.sum(axis=0, dtype=np.float64), count + len(maps)
    usual = total / count
    return {"usual": (usual + usual.mean() + _SMALLEST).astype(np.float32)}


def _blurred_error(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    deviation_px = settings.blur_deviation_px(pixels.shape[1], pixels.shape[2])
    return tf.reduce_mean(tf.square(blurred(pixels - outputs[RECONSTRUCTION], deviation_px)), axis=[1, 2, 3])


def _cosine_distance(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    """1 - cosine of the angle between the blurred images; ignores contrast and slightly displaced strokes."""
    deviation_px = settings.blur_deviation_px(pixels.shape[1], pixels.shape[2])
    image, reconstruction = (_directions(blurred(one, deviation_px)) for one in (pixels, outputs[RECONSTRUCTION]))
    return tf.reduce_sum(tf.math.squared_difference(image, reconstruction), axis=1) / 2.0


def _directions(images: tf.Tensor) -> tf.Tensor:
    """Unit vectors [B, H W C + 1]; the extra faint value gives black images a direction too."""
    flat = tf.reshape(images, [-1, int(np.prod(images.shape[1:]))])
    return tf.math.l2_normalize(tf.pad(flat, [[0, 0], [0, 1]], constant_values=_FAINT), axis=1)


def _latent_distance(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    return tf.reduce_mean(tf.square(_whitened(outputs, fitted)), axis=1)


def _whitened(outputs: Tensors, fitted: Any) -> tf.Tensor:
    return tf.matmul(outputs[LATENT] - fitted["mean"], fitted["whitening"])


def _fit_latent_distance(batches: Batches, settings: CalibrationSettings) -> Fitted:
    """Mahalanobis distance with a shrunk covariance (Lee et al. 2018, arXiv:1807.03888; Ledoit & Wolf 2004)."""
    latents = np.concatenate([outputs[LATENT].numpy() for _, outputs in batches()])
    if latents.shape[1] > _MAX_LATENT:
        raise ScoreError(
            f"evaluation.score latent_distance and neighbour_distance: the latent has {latents.shape[1]} numbers, but "
            f"at most {_MAX_LATENT} are supported; set trainer.latent_dim, or choose another score"
        )
    gaussian = LedoitWolf().fit(latents)
    values, vectors = np.linalg.eigh(gaussian.covariance_)
    whitening = vectors / np.sqrt(np.maximum(values, _SMALLEST))
    return {"mean": gaussian.location_.astype(np.float32), "whitening": whitening.astype(np.float32)}


def _neighbour_distance(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    """Mean distance to the 5 nearest latents of the bank, whitened (cf. Sun et al. 2022, arXiv:2204.06507)."""
    latents, bank = _whitened(outputs, fitted), fitted["bank"]
    squared = (
        tf.reduce_sum(tf.square(latents), axis=1, keepdims=True)
        - 2.0 * tf.matmul(latents, bank, transpose_b=True)
        + tf.reduce_sum(tf.square(bank), axis=1)
    )
    nearest = -tf.math.top_k(-squared, min(_NEIGHBOURS, bank.shape[0]), sorted=False).values
    return tf.reduce_mean(tf.sqrt(tf.maximum(nearest, 0.0)), axis=1)


def _fit_neighbour_distance(batches: Batches, settings: CalibrationSettings) -> Fitted:
    """The whitening of `latent_distance`, and the whitened latents of at most `_BANK` evenly spaced images."""
    fitted = _fit_latent_distance(batches, settings)
    bank = np.concatenate([_whitened(outputs, fitted).numpy() for _, outputs in batches()])
    return {**fitted, "bank": bank[np.linspace(0, len(bank) - 1, min(_BANK, len(bank))).round().astype(int)]}


def _ensemble(pixels: tf.Tensor, outputs: Tensors, fitted: Any, settings: CalibrationSettings) -> tf.Tensor:
    """Mean of the members' standardised logarithms, each at least -3 so that one low score cannot hide an alarm."""
    logs = _member_logs(pixels, outputs, fitted, settings)
    standardised = tf.maximum((logs - fitted["location"]) / fitted["spread"], _QUIETEST)
    return tf.reduce_mean(standardised, axis=1)


def _fit_ensemble(batches: Batches, settings: CalibrationSettings) -> Fitted:
    """The members' own numbers, and mean and standard deviation of their logarithms.

    The latter come from images that the members were not fitted to, because an image in the bank of
    `neighbour_distance` is its own nearest neighbour. An overfitted network has smaller errors on all training images
    by a factor, which shifts the logarithms but changes no ranking.
    """
    fitted = {
        f"{name}.{key}": values
        for name in settings.score_members
        for key, values in SCORES[name].fit(_every_other(batches, 0), settings).items()
    }
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


SCORES: dict[str, Score] = {
    "error": Score(_error),
    "worst_pixels": Score(_worst_pixels),
    "patch_max": Score(_patch_max),
    "local_ssim": Score(_local_ssim),
    "weighted_error": Score(_weighted_error, _fit_weighted_error),
    "blurred_error": Score(_blurred_error),
    "cosine_distance": Score(_cosine_distance),
    "latent_distance": Score(_latent_distance, _fit_latent_distance),
    "neighbour_distance": Score(_neighbour_distance, _fit_neighbour_distance),
    "ensemble": Score(_ensemble, _fit_ensemble),
}


class FittedScore(tf.Module):
    """The configured score with its fitted numbers, as an exportable function: pixels, outputs -> [B]."""

    def __init__(self, settings: CalibrationSettings, fitted: Fitted) -> None:
        super().__init__()
        self._settings = settings
        self._fitted = {key: tf.Variable(values, trainable=False) for key, values in fitted.items()}

    def __call__(self, pixels: tf.Tensor, outputs: Tensors) -> tf.Tensor:
        return SCORES[self._settings.score].compute(pixels, outputs, self._fitted, self._settings)


def fit_score(settings: CalibrationSettings, batches: Batches) -> FittedScore:
    """The score that `settings` names, fitted to training images."""
    return FittedScore(settings, SCORES[settings.score].fit(batches, settings))
