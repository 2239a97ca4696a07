"""`features`: linear models of a frozen network's feature maps, fitted in closed form, for finding defects.

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
from trainer.families.feature_fit import Array, fit_linear, surroundings, two_kinds
from trainer.families.feature_maps import FeatureMaps
from trainer.families.output_range import Clip
from trainer.settings.model import ModelSettings

_COMPONENTS: Final = 32
"""Components of each surrounding position from which a position is reconstructed."""
_MOST_MAPS, _MAP_BYTES = 2048, 600 * 2**20
"""Maps that the models are fitted to, at most, and their size in memory, in 16 bits each."""
_MOST_COPIES: Final = 8
_BELOW_USUAL: Final = 3.0
"""Spreads below the usual error at which a position counts as free of error, so that errors are not negative."""
_SMALLEST: Final = 1e-9
_RIDGE: Final = 1e-2
_BATCH: Final = 16
_LOG = logging.getLogger(__name__)


def features(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """The backbone, and linear models that are all zero until `fit_features`."""
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
    """Fit the linear models to the training images, and the decoder from latent to pixels by ridge regression."""
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

    Each position is reconstructed twice: from its surroundings, and with the whole map from the latent. Either error
    counts by how far it is above what is usual at this position; the larger of the two is the position's error,
    relative to its mean on images left out of the fit.
    """

    def __init__(self, maps: FeatureMaps, latent_dim: int, steady_against: Collection[ChangeName]) -> None:
        super().__init__()
        height, width, channels = maps.shape
        self.maps = maps
        self._latent_dim, self._steady_against = latent_dim, tuple(steady_against)
        self._mean, self._scale = _frozen(channels), _frozen(channels, value=1.0)
        components = min(_COMPONENTS, channels)
        self._surroundings = surroundings(height, width).astype(np.int32)
        self._axes = _frozen(channels, components)
        self._kernel = _frozen(components * self._surroundings.shape[1], channels)
        self._whole_mean = _frozen(height * width * channels)
        self._whole_axes = _frozen(height * width * channels, latent_dim)
        self._deviations, self._typical = _frozen(latent_dim, value=1.0), _frozen(value=1.0)
        self._usual, self._spread = _frozen(height, width, 2), _frozen(height, width, 2, value=1.0)
        self.depth = 8
        """Bits of the levels in which training images are changed."""
        self.unseen_maps = tf.Variable(tf.zeros((0, height, width)), trainable=False, shape=(None, height, width))
        """[n, h, w]: errors of training images, from fits without them."""

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """In batches of 16, because a backbone's first layers and surroundings take many times the images' memory."""
        if pixels.shape[0] is not None and pixels.shape[0] <= _BATCH:  # no loop, which not every runtime has
            return self._of_batch(pixels)
        count = tf.maximum(tf.shape(pixels)[0], 1)
        shapes = [(None, self._latent_dim), (None, *self.maps.shape[:2])]
        found = [
            tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=shape) for shape in shapes
        ]

        def add_batch(start: tf.Tensor, *found: tf.TensorArray) -> tuple[tf.Tensor, ...]:
            of_batch = self._of_batch(pixels[start : start + _BATCH])
            written = [whole.write(whole.size(), part) for whole, part in zip(found, of_batch, strict=True)]
            return start + _BATCH, *written

        found = tf.while_loop(lambda start, *_: start < count, add_batch, [0, *found], parallel_iterations=1)[1:]
        latents, errors = (tf.ensure_shape(one.concat(), shape) for one, shape in zip(found, shapes, strict=True))
        return latents, errors

    def _of_batch(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        maps = (self.maps(pixels) - self._mean) / self._scale
        count, (height, width, channels) = tf.shape(maps)[0], self.maps.shape
        centred = tf.reshape(maps, [count, height * width * channels]) - self._whole_mean
        projected = tf.matmul(centred, self._whole_axes)
        # Transposing the axes instead would store them twice in an exported file.
        as_a_whole = centred - tf.transpose(tf.matmul(self._whole_axes, projected, transpose_b=True))
        components = tf.reshape(tf.matmul(maps, self._axes), [count, height * width, self._axes.shape[1]])
        around = tf.reshape(tf.gather(components, self._surroundings, axis=1), [-1, self._kernel.shape[0]])
        by_surroundings = tf.reshape(maps, [-1, channels]) - tf.matmul(around, self._kernel)
        errors = tf.stack(
            [
                tf.reduce_mean(tf.square(tf.reshape(residual, [count, height, width, channels])), axis=-1)
                for residual in (by_surroundings, as_a_whole)
            ],
            axis=-1,
        )
        deviation = tf.reduce_max((errors - self._usual) / self._spread, axis=-1)
        return projected / self._deviations, tf.nn.relu(deviation + _BELOW_USUAL) / self._typical

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
        self._axes.assign(fitted.axes)
        self._kernel.assign(fitted.kernel)
        self._whole_mean.assign(fitted.whole_mean)
        self._whole_axes.assign(_padded(fitted.whole_axes, self._whole_axes.shape))
        missing = self._latent_dim - len(fitted.deviations)
        self._deviations.assign(np.pad(fitted.deviations, (0, missing), constant_values=1.0))
        self._usual.assign(fitted.usual)
        self._spread.assign(fitted.spread)
        unseen = np.maximum(fitted.unseen + _BELOW_USUAL, 0.0)
        self._typical.assign(max(float(unseen.mean()), _SMALLEST))
        self.unseen_maps.assign(unseen / self._typical)
        rounds = len(maps) // len(chosen)
        _log_progress(rounds + 1, rounds)
        if not images.sources.any():  # tiles of one image may well differ
            _tell_of_two_kinds(fitted.latents * fitted.deviations)
        return chosen, fitted.latents

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
            _log_progress(number + 1, rounds)
        return chosen, maps, np.arange(len(maps)) % len(chosen)


def _tell_of_two_kinds(points: Array) -> None:
    kinds = two_kinds(points)
    if kinds:
        _LOG.warning(
            "the training images are of two clearly different kinds, about %d and %d of %d. If they are two products, "
            "give each a folder and a model of its own; if variants, evaluation.groups gives each its threshold",
            *(*kinds, len(points)),
            extra={"notice": True},
        )


def _log_progress(done: int, rounds: int) -> None:
    """Of the rounds that compute feature maps, and of the fit after them."""
    _LOG.info("feature maps", extra={"done": done, "total": rounds + 1, "unit": "steps"})


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
