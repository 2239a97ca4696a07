"""A linear path into and out of the latent, which starts as PCA and keeps training beside the network.

A network that starts at random needs thousands of images before it beats PCA. Here the network starts at zero and
learns what PCA leaves over, as residual blocks do (He et al. 2016, arXiv:1603.05027); Baldi & Hornik 1989,
doi:10.1016/0893-6080(89)90014-2: PCA is the best linear autoencoder.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from trainer.families.autoencoder import Autoencoder, Shape
from trainer.families.family import Images, TrainingImages
from trainer.families.output_range import Clip, Sigmoid
from trainer.families.principal_components import fit_pca

_ENCODER, _DECODER = "linear_encoder", "linear_decoder"
_SMALLEST_SHARE, _SMALLEST = 1e-3, 1e-6
"""Smallest deviation, relative to the largest and absolute, that the start scales to 1."""


class Linear(keras.layers.Layer):
    """[B, inputs] -> [B, outputs], in float32; with `zeros` it starts at zero.

    The kernel is multiplied by 1 / sqrt(inputs), so that a step of the optimizer changes the outputs of large images no
    more than those of small ones (Jacot et al. 2018, arXiv:1806.07572, section 2).
    """

    def __init__(self, outputs: int, *, zeros: bool, name: str) -> None:
        super().__init__(dtype="float32", name=name)
        self._outputs = outputs
        self._initializer = "zeros" if zeros else keras.initializers.RandomNormal(stddev=1.0)

    def build(self, input_shape: tf.TensorShape) -> None:
        self._gain = 1.0 / math.sqrt(input_shape[-1])
        self._kernel = self.add_weight("kernel", (input_shape[-1], self._outputs), initializer=self._initializer)
        self._bias = self.add_weight("bias", (self._outputs,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.matmul(inputs, self._kernel * self._gain) + self._bias

    def start_at(self, kernel: npt.NDArray[Any], bias: npt.NDArray[Any]) -> None:
        """Set the map to `inputs @ kernel + bias`; inputs and outputs beyond those given have no influence."""
        for variable, start in ((self._kernel, kernel / self._gain), (self._bias, bias)):
            margins = [(0, whole - given) for whole, given in zip(variable.shape, start.shape, strict=True)]
            variable.assign(np.pad(start, margins).astype(np.float32))


class InPixels(keras.layers.Layer):
    """Adds the linear path's pixels to the network's values, before these become pixels in [0, 1]."""

    def __init__(self, into_range: Clip | Sigmoid) -> None:
        super().__init__(dtype="float32")
        self._into_range = into_range

    def call(self, both: list[tf.Tensor]) -> tf.Tensor:
        values, pixels = both
        return values + self._into_range.values_for(tf.reshape(pixels, tf.shape(values)))


def linear_latent(image: tf.Tensor, features: tf.Tensor, outputs: int) -> tf.Tensor:
    """The latent [B, outputs]: a linear map of the image, plus one of the network's features that starts at zero."""
    linear = Linear(outputs, zeros=False, name=_ENCODER)(keras.layers.Flatten(dtype="float32")(image))
    return keras.layers.Add(dtype="float32")([linear, Linear(outputs, zeros=True, name="latent")(features)])


def add_linear_pixels(latent: tf.Tensor, values: tf.Tensor, shape: Shape, into_range: Clip | Sigmoid) -> tf.Tensor:
    """The network's values [B, H, W, C] plus those of a linear map of the latent to pixels."""
    linear = Linear(math.prod(shape), zeros=True, name=_DECODER)(latent)
    return InPixels(into_range)([values, linear])


def has_linear_path(autoencoder: Autoencoder) -> bool:
    """Whether the network was built with a linear path."""
    return any(layer.name == _DECODER for layer in autoencoder.decoder.layers)


def start_as_pca(autoencoder: Autoencoder, images: TrainingImages, to_pixels: Callable[[Images], Any]) -> None:
    """Make an untrained autoencoder with a linear path reconstruct as PCA with `latent_dim` components does.

    The latent numbers have variance 1. Those without a component, for lack of images, start at zero.
    """
    pca = fit_pca(images, autoencoder.latent_dim, to_pixels)
    encoder, decoder = autoencoder.encoder.get_layer(_ENCODER), autoencoder.decoder.get_layer(_DECODER)
    black = np.zeros((1, *images.shape), np.float32)
    offset = np.asarray(to_pixels(black), np.float64).ravel()
    scale = np.asarray(to_pixels(black + 1.0), np.float64).ravel() - offset
    deviations = np.maximum(pca.deviations, max(_SMALLEST_SHARE * pca.deviations.max(), _SMALLEST))[:, np.newaxis]
    into_latent = pca.axes / deviations
    encoder.start_at((into_latent * scale).T, into_latent @ (offset - pca.mean))
    decoder.start_at(pca.axes * deviations, pca.mean)
