"""How a decoder's values become pixels in [0, 1]: clipped, or by a sigmoid for cross-entropy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

_LEAST = 0.01
"""Smallest output that a sigmoid starts from: closer to 0 its gradient vanishes."""


def output_range(loss: Mapping[Any, float]) -> "Clip | Sigmoid":
    """The last layer of a decoder: a sigmoid if the loss contains cross-entropy, otherwise clipping."""
    return Sigmoid(dtype="float32") if "bce" in loss else Clip(dtype="float32")


class Sigmoid(keras.layers.Layer):
    """Values in (0, 1), for cross-entropy."""

    def call(self, values: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(values)

    def inverse(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The values that the layer maps to `pixels`."""
        inside = np.clip(pixels, _LEAST, 1.0 - _LEAST)
        return np.log(inside / (1.0 - inside))

    def values_for(self, pixels: tf.Tensor) -> tf.Tensor:
        """`inverse` within the network; the gradient passes through the clipping unchanged."""
        inside = pixels + tf.stop_gradient(tf.clip_by_value(pixels, _LEAST, 1.0 - _LEAST) - pixels)
        return tf.math.log(inside) - tf.math.log1p(-inside)


class Clip(keras.layers.Layer):
    """Clips values to [0, 1]; in training with the identity's gradient, as a sigmoid's vanishes on black images."""

    def inverse(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The values that the layer maps to `pixels`."""
        return pixels

    def values_for(self, pixels: tf.Tensor) -> tf.Tensor:
        """`inverse` within the network."""
        return pixels

    def call(self, values: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        clipped = tf.clip_by_value(values, 0.0, 1.0)
        return values + tf.stop_gradient(clipped - values) if training else clipped
