"""`residual`: a convolutional autoencoder of residual blocks, for images of any size and colour.

He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv:1603.05027. Blocks are not normalised, so that
training and inference compute the same function. Instead each block starts as the identity, with its last convolution
at zero (Zhang et al. 2019, "Fixup Initialization", arXiv:1901.09321). The decoder upsamples by sub-pixel convolutions
(Shi et al. 2016, arXiv:1609.05158).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from runtime.tfrecords import as_many_as_fit
from trainer.families.autoencoder import Autoencoder, Shape, join
from trainer.families.convolutional import margins_to_multiple, smallest_map
from trainer.families.family import Images, TrainingImages
from trainer.settings.model import ModelSettings

_LARGEST_MAP_PX = 8
_FIRST_FILTERS, _MOST_FILTERS = 32, 64
_LEAST = 0.01
"""Smallest output that a sigmoid starts from: closer to 0 its gradient vanishes."""
_COLOUR_IMAGES = 1000
"""Training images whose mean colour the decoder starts from, if they fit into memory."""


def residual(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """One stage for each of `filters`, at half the previous size; without filters the image's size determines them."""
    return join(residual_encoder(shape, settings, settings.latent_size), residual_decoder(shape, settings))


def start_at_mean_colour(autoencoder: Autoencoder, images: TrainingImages, to_pixels: Callable[[Images], Any]) -> None:
    """Initialise a ResidualDecoder so that it draws the mean colour of the training images everywhere.

    Decoders that started from black had to overcome clipping first, and learned light images late or never.
    """
    sample = images.sample(as_many_as_fit(images.shape, at_most=_COLOUR_IMAGES))
    autoencoder.decoder.start_at(np.asarray(to_pixels(sample)).mean(axis=(0, 1, 2)))


def filters_for(shape: Shape) -> tuple[int, ...]:
    """Filters of the stages down to a map of at most 8x8: 32 for the first stage, 64 for the others."""
    stages = max(1, math.ceil(math.log2(max(shape[:2]) / _LARGEST_MAP_PX)))
    return tuple(min(_FIRST_FILTERS * 2**stage, _MOST_FILTERS) for stage in range(stages))


def residual_encoder(shape: Shape, settings: ModelSettings, outputs: int) -> keras.Model:
    """Normalised [B, H, W, C] -> [B, outputs]."""
    layers = keras.layers
    filters = settings.filters or filters_for(shape)
    image = layers.Input(shape)
    features = layers.ZeroPadding2D(margins_to_multiple(shape, 2 ** len(filters)))(image)
    for count in filters:
        features = layers.Conv2D(count, 4, strides=2, padding="same")(features)
        features = _block(features)
    features = layers.Flatten()(layers.Activation("silu")(features))
    return keras.Model(image, layers.Dense(outputs, name="latent")(features), name="encoder")


def residual_decoder(shape: Shape, settings: ModelSettings) -> "ResidualDecoder":
    """Latent [B, Z] -> [B, H, W, C] in [0, 1]."""
    layers = keras.layers
    filters = settings.filters or filters_for(shape)
    stride = 2 ** len(filters)
    map_shape = (*smallest_map(shape, stride), filters[-1])
    latent = layers.Input((settings.latent_size,))
    features = layers.Reshape(map_shape)(layers.Dense(math.prod(map_shape))(latent))
    for count in reversed(filters[:-1]):
        features = layers.Activation("silu")(_block(features))
        features = SubPixelConvolution(count)(features)
    features = layers.Activation("silu")(_block(features))
    into_range = Sigmoid(dtype="float32") if "bce" in settings.loss else Clip(dtype="float32")
    into_pixels = SubPixelConvolution(shape[2], kernel_initializer="zeros")
    crop = layers.Cropping2D(margins_to_multiple(shape, stride), dtype="float32", name="reconstruction")
    pixels = crop(into_range(into_pixels(features)))
    return ResidualDecoder(latent, pixels, into_pixels=into_pixels, into_range=into_range)


class ResidualDecoder(keras.Model):
    """A decoder whose first output can be set to a colour."""

    def __init__(
        self, latent: tf.Tensor, pixels: tf.Tensor, *, into_pixels: "SubPixelConvolution", into_range: "Clip | Sigmoid"
    ) -> None:
        super().__init__(latent, pixels, name="decoder")
        self._into_pixels = into_pixels
        self._into_range = into_range

    def start_at(self, colour: npt.NDArray[np.float32]) -> None:
        """Make the untrained decoder draw this colour [C] in [0, 1] everywhere."""
        self._into_pixels.bias.assign(np.tile(self._into_range.inverse(colour), 4))


class Sigmoid(keras.layers.Layer):
    """Values in (0, 1), for cross-entropy."""

    def call(self, values: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(values)

    def inverse(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The values that the layer maps to `pixels`."""
        inside = np.clip(pixels, _LEAST, 1.0 - _LEAST)
        return np.log(inside / (1.0 - inside))


class Clip(keras.layers.Layer):
    """Clips values to [0, 1]; in training with the identity's gradient, as a sigmoid's vanishes on black images."""

    def inverse(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The values that the layer maps to `pixels`."""
        return pixels

    def call(self, values: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        clipped = tf.clip_by_value(values, 0.0, 1.0)
        return values + tf.stop_gradient(clipped - values) if training else clipped


class SubPixelConvolution(keras.layers.Layer):
    """Doubles the size: [B, H, W, C] -> [B, 2 H, 2 W, filters]."""

    def __init__(self, filters: int, *, kernel_initializer: str = "glorot_uniform") -> None:
        super().__init__()
        self._convolution = keras.layers.Conv2D(4 * filters, 3, padding="same", kernel_initializer=kernel_initializer)

    @property
    def bias(self) -> tf.Variable:
        """[4 filters]: the filters of each of the four pixels that one pixel becomes, in turn."""
        return self._convolution.bias

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return tf.nn.depth_to_space(self._convolution(features), 2)


def _block(features: tf.Tensor) -> tf.Tensor:
    layers = keras.layers
    count = features.shape[-1]
    change = layers.Conv2D(count, 3, padding="same")(layers.Activation("silu")(features))
    change = layers.Conv2D(count, 3, padding="same", kernel_initializer="zeros")(layers.Activation("silu")(change))
    return layers.Add()([features, change])
