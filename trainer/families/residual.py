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
from trainer.families.linear_path import add_linear_pixels, linear_latent
from trainer.families.output_range import Clip, Sigmoid, output_range
from trainer.settings.following import filters_for
from trainer.settings.model import ModelSettings

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
    if settings.linear_path:
        return keras.Model(image, linear_latent(image, features, outputs), name="encoder")
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
    into_range = output_range(settings.loss)
    into_pixels = SubPixelConvolution(shape[2], kernel_initializer="zeros")
    values = layers.Cropping2D(margins_to_multiple(shape, stride), dtype="float32")(into_pixels(features))
    if settings.linear_path:
        values = add_linear_pixels(latent, values, shape, into_range)
    return ResidualDecoder(latent, into_range(values), into_pixels=into_pixels, into_range=into_range)


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
