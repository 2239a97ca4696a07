"""`features`: linear autoencoders of a frozen network's feature maps, fitted in closed form, for finding defects.

Shi et al. 2021, "Unsupervised Anomaly Segmentation via Deep Feature Reconstruction", arXiv:2012.07122; Ndiour et al.
2022, "FRE: A Fast Method for Anomaly Detection and Segmentation", arXiv:2211.12650.
"""

import logging
import math
from collections.abc import Callable, Collection
from typing import Any, Final

import numpy as np
import tensorflow as tf
import tf_keras as keras

from images.harmless_changes import change_randomly
from schema.changes import ChangeName
from trainer.backbones.loading import load_backbone
from trainer.families.autoencoder import Autoencoder, Shape, join
from trainer.families.family import Images, TrainingImages
from trainer.families.feature_fit import Array, LinearFit, fit_linear
from trainer.families.feature_maps import FeatureMaps
from trainer.families.output_range import Clip
from trainer.settings.model import ModelSettings

_COMPONENTS: Final = 64
"""Components from which each position is reconstructed."""
_MOST_MAPS, _MAP_BYTES = 2048, 600 * 2**20
"""Maps that the autoencoders are fitted to, at most, and their size in memory, in 16 bits each."""
_MOST_COPIES: Final = 8
_NEW_VIEWS: Final = 1.5
"""Factor by which the error of whole maps may rise on views unlike all others before positions count instead."""
_SMALLEST: Final = 1e-9
_RIDGE: Final = 1e-2
_BATCH: Final = 16
_LOG = logging.getLogger(__name__)


def features(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """The backbone, and linear autoencoders that are all zero until `fit_features`."""
    maps = FeatureMaps(load_backbone(settings.backbone, settings.backbone_layers), shape)
    errors = FeatureErrors(maps, settings.latent_size, settings.steady_against)
    image = keras.layers.Input(shape)
    encoder = keras.Model(image, _Latent(errors)(image), name="encoder")
    latent = keras.layers.Input((settings.latent_size,))
    pixels = keras.layers.Dense(math.prod(shape), kernel_initializer="zeros", dtype="float32", name="pixels")(latent)
    decoder = keras.Model(latent, Clip(dtype="float32")(keras.layers.Reshape(shape)(pixels)), name="decoder")
    joined = join(encoder, decoder)
    return Autoencoder(joined.encoder, joined.decoder, joined.model, feature_errors=errors)


def fit_features(autoencoder: Autoencoder, images: TrainingImages, to_pixels: Callable[[Images], Any]) -> None:
    """Fit the linear autoencoders to the training images, and the decoder from latent to pixels by ridge regression."""
    assert autoencoder.feature_errors is not None
    chosen, latents = autoencoder.feature_errors.fit(images)
    mean, moment = 0.0, np.zeros((latents.shape[1], math.prod(images.shape)))
    for start in range(0, len(latents), _BATCH):
        rows, of_rows = chosen[start : start + _BATCH], latents[start : start + _BATCH]
        flat = np.asarray(to_pixels(images.rows(slice(rows.start, rows.stop, rows.step)))).reshape(len(rows), -1)
        mean = mean + flat.sum(axis=0, dtype=np.float64) / len(latents)
        moment += of_rows.T @ flat
    centred = latents - latents.mean(axis=0)
    penalised = centred.T @ centred + _RIDGE * len(latents) * np.eye(latents.shape[1])
    kernel = np.linalg.solve(penalised, moment - np.outer(latents.sum(axis=0), mean))
    bias = mean - latents.mean(axis=0) @ kernel
    layer = autoencoder.decoder.get_layer("pixels")
    layer.set_weights([_padded(kernel, layer.kernel.shape), bias.astype(np.float32)])


class FeatureErrors(tf.Module):
    """Pixels [B, H, W, C] in [0, 1] -> latent [B, Z] and error of each position of the feature maps [B, h, w].

    The error is that of the whole map's reconstruction from the latent. But if that error rises by half for images that
    are unlike all others, the autoencoder knows its views by heart, and new views would look like defects. Then the
    error is that of each position's own reconstruction. Either is relative to its mean on images left out of the fit.
    """

    def __init__(self, maps: FeatureMaps, latent_dim: int, steady_against: Collection[ChangeName]) -> None:
        super().__init__()
        height, width, channels = maps.shape
        self.maps = maps
        self._latent_dim, self._steady_against = latent_dim, tuple(steady_against)
        self._mean, self._scale = _frozen(channels), _frozen(channels, value=1.0)
        self._position_axes = _frozen(channels, min(_COMPONENTS, channels))
        self._whole_mean = _frozen(height * width * channels)
        self._whole_axes = _frozen(height * width * channels, latent_dim)
        self._deviations, self._typical = _frozen(latent_dim, value=1.0), _frozen(value=1.0)
        self.knows_by_heart = False
        self.depth = 8
        """Bits of the levels in which training images are changed."""
        self.unseen_maps = tf.Variable(tf.zeros((0, height, width)), trainable=False, shape=(None, height, width))
        """[n, h, w]: errors of training images, from fits without them."""

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        maps = (self.maps(pixels) - self._mean) / self._scale
        count, (height, width, channels) = tf.shape(maps)[0], self.maps.shape
        centred = tf.reshape(maps, [count, height * width * channels]) - self._whole_mean
        projected = tf.matmul(centred, self._whole_axes)
        if self.knows_by_heart:
            onto_axes = tf.reduce_sum(tf.square(tf.einsum("bhwc,ck->bhwk", maps, self._position_axes)), axis=-1)
            errors = tf.maximum(tf.reduce_mean(tf.square(maps), axis=-1) - onto_axes / channels, 0.0)
        else:
            # Transposing the axes instead would double them in an exported file.
            residual = centred - tf.transpose(tf.matmul(self._whole_axes, projected, transpose_b=True))
            errors = tf.reduce_mean(tf.reshape(tf.square(residual), [count, height, width, channels]), axis=-1)
        return projected / self._deviations, errors / self._typical

    def fit(self, images: TrainingImages) -> tuple[range, Array]:
        """Fit to at most 2,048 maps; returns the rows of the images used [n] and their latents [n, Z or fewer]."""
        chosen, maps, of_images = self._maps_of(images)
        mean, scale = _moments(maps)
        maps -= mean.astype(maps.dtype)
        maps /= scale.astype(maps.dtype)
        _LOG.info("fitting to the feature maps of %d images", len(chosen))
        fitted = fit_linear(
            maps,
            of_images,
            latent_dim=self._latent_dim,
            components=_COMPONENTS,
            sources=images.sources[chosen.start : chosen.stop : chosen.step],
        )
        self._mean.assign(mean)
        self._scale.assign(scale)
        self._position_axes.assign(fitted.position_axes)
        self._whole_mean.assign(fitted.whole_mean)
        self._whole_axes.assign(_padded(fitted.whole_axes, self._whole_axes.shape))
        missing = self._latent_dim - len(fitted.deviations)
        self._deviations.assign(np.pad(fitted.deviations, (0, missing), constant_values=1.0))
        self._judge_views(fitted)
        return chosen, fitted.latents

    def _judge_views(self, fitted: LinearFit) -> None:
        """Find out whether the autoencoder of whole maps knows its views by heart, and what errors are typical."""
        familiar, unfamiliar = (float(errors[..., 1].mean()) for errors in (fitted.unseen, fitted.unseen_views))
        self.knows_by_heart = unfamiliar > _NEW_VIEWS * familiar
        unseen = fitted.unseen[..., 0 if self.knows_by_heart else 1]
        self._typical.assign(max(float(unseen.mean()), _SMALLEST))
        self.unseen_maps.assign(unseen / self._typical)
        _LOG.info(
            "the error of whole feature maps is %.2f times as large for views unlike all others, so %s reconstructed",
            unfamiliar / max(familiar, _SMALLEST),
            "each position by itself is" if self.knows_by_heart else "whole maps are",
        )

    def _maps_of(self, images: TrainingImages) -> tuple[range, Array, Array]:
        """(rows of the images used, maps [N, h, w, c], each map's image [N]): the images as they are, then changed."""
        most = max(2, min(_MOST_MAPS, _MAP_BYTES // (2 * math.prod(self.maps.shape))))
        share = 2 if self._steady_against else 1
        chosen = range(0, images.count, math.ceil(images.count / max(1, most // share)))
        rounds = 1 + min(_MOST_COPIES, max(1, most // len(chosen) - 1)) if self._steady_against else 1
        maps = np.empty((rounds * len(chosen), *self.maps.shape), np.float16)
        compute = tf.function(self.maps, autograph=False)
        random = np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002 - follows the global seed
        for number in range(rounds):
            for start in range(0, len(chosen), _BATCH):
                rows = chosen[start : start + _BATCH]
                pixels = images.rows(slice(rows.start, rows.stop, rows.step))
                if number:
                    pixels = np.stack([_changed(one, self._steady_against, random, depth=self.depth) for one in pixels])
                first = number * len(chosen) + start
                maps[first : first + len(rows)] = compute(tf.constant(pixels)).numpy()
            _LOG.info("feature maps", extra={"done": number + 1, "total": rounds, "unit": "rounds"})
        return chosen, maps, np.arange(len(maps)) % len(chosen)


class _Latent(keras.layers.Layer):
    """The latent of FeatureErrors as a layer."""

    def __init__(self, errors: FeatureErrors) -> None:
        super().__init__(dtype="float32", trainable=False, name="latent")
        self._errors = errors

    def call(self, pixels: tf.Tensor) -> tf.Tensor:
        return self._errors(pixels)[0]


def _changed(pixels: Images, kinds: Collection[ChangeName], random: np.random.Generator, *, depth: int) -> Images:
    """An image [H, W, C] in [0, 1] with a harmless change of each kind, in levels of this many bits."""
    white = np.float32(2**depth - 1)
    stored = np.round(pixels * white).astype(np.uint8 if depth == 8 else np.uint16)
    changed = change_randomly(stored[..., 0] if stored.shape[-1] == 1 else stored, kinds, random)
    return (changed.reshape(pixels.shape) / white).astype(np.float32)


def _moments(maps: Array) -> tuple[Images, Images]:
    """Mean and standard deviation of each channel [c] of maps [N, h, w, c] over all positions."""
    sums, squares = np.zeros(maps.shape[-1]), np.zeros(maps.shape[-1])
    for one in maps:
        values = one.reshape(-1, maps.shape[-1]).astype(np.float32)
        sums += values.mean(axis=0)
        squares += np.square(values).mean(axis=0)
    mean = sums / len(maps)
    scale = np.sqrt(np.maximum(squares / len(maps) - mean**2, _SMALLEST)) + _SMALLEST
    return mean.astype(np.float32), scale.astype(np.float32)


def _frozen(*shape: int, value: float = 0.0) -> tf.Variable:
    return tf.Variable(np.full(shape, value, np.float32), trainable=False)


def _padded(array: Array, shape: Any) -> Images:
    """Zeros beyond what there is of the array."""
    margins = [(0, whole - given) for whole, given in zip(shape, array.shape, strict=True)]
    return np.pad(array, margins).astype(np.float32)
