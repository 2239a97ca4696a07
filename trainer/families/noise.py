"""Randomness inside a model: from the global seed, kept in checkpoints, the same with and without XLA."""

import numpy as np
import tensorflow as tf
import tf_keras as keras


class Noise(keras.layers.Layer):
    """Standard normal numbers of the input's shape, or uniform ones; each call continues the stream.

    Keras's own noise layers take TensorFlow's global stream, whose seed XLA ignores and which no checkpoint holds.
    """

    def __init__(self) -> None:
        super().__init__(dtype="float32")
        self._generator = tf.random.Generator.from_seed(int(np.random.randint(2**31)))

    def call(self, like: tf.Tensor) -> tf.Tensor:
        return self._generator.normal(tf.shape(like), dtype=like.dtype)

    def uniform(self, shape: tuple[int | tf.Tensor, ...]) -> tf.Tensor:
        """Numbers of any shape, spread evenly over [0, 1)."""
        return self._generator.uniform(shape)
