"""Random numbers inside a model: seeded, saved in checkpoints, and the same with and without XLA."""

import numpy as np
import tensorflow as tf
import tf_keras as keras


class Noise(keras.layers.Layer):
    """Standard normal numbers in the input's shape, or uniform ones; each call continues the stream.

    Keras's own noise layers use TensorFlow's global stream, which ignores its seed under XLA and is in no checkpoint.
    """

    def __init__(self) -> None:
        super().__init__(dtype="float32")
        self._generator = tf.random.Generator.from_seed(int(np.random.randint(2**31)))

    def call(self, like: tf.Tensor) -> tf.Tensor:
        return self._generator.normal(tf.shape(like), dtype=like.dtype)

    def uniform(self, shape: tuple[int | tf.Tensor, ...]) -> tf.Tensor:
        """Uniform numbers in [0, 1), in any shape."""
        return self._generator.uniform(shape)
