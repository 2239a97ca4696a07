"""`contractive`: small changes to an image barely change its latent.

Rifai et al. 2011, "Contractive Auto-Encoders: Explicit Invariance During Feature Extraction", ICML.
The penalty is the squared Frobenius norm of the encoder's Jacobian, estimated without forming it (Hutchinson 1990,
doi:10.1080/03610919008812866): this takes one backward pass instead of one per latent number.
"""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from trainer.families.autoencoder import Autoencoder, Shape, weight_per_value
from trainer.families.dense import dense_encoder
from trainer.families.noise import Noise
from trainer.settings.model import ModelSettings


def contractive(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """The decoder uses the encoder's transposed weights: otherwise tiny latents, scaled up again, evade the penalty."""
    encoder = dense_encoder(shape, settings, settings.latent_size)
    forward = [layer for layer in encoder.layers if isinstance(layer, keras.layers.Dense)]
    backward = [TransposedDense(layer, activation="relu") for layer in reversed(forward[1:])]
    layers = [
        keras.layers.Input((settings.latent_size,)),
        *backward,
        TransposedDense(forward[0], activation="linear"),
        keras.layers.Activation("sigmoid", dtype="float32"),
        keras.layers.Reshape(shape, dtype="float32", name="reconstruction"),
    ]
    penalty = ContractionPenalty(encoder, weight_per_value(settings.contraction, shape))
    decoder = keras.Sequential(layers, name="decoder")
    image = keras.layers.Input(shape)
    return Autoencoder(encoder, decoder, keras.Model(image, decoder(penalty(image)), name="autoencoder"))


def squared_jacobian_norm(
    encode: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, probe: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """(latent [B, Z], |probe^T J|^2 [B]); the mean of the latter over probes v with E[v v^T] = I is |J|_F^2."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        latent = tf.cast(encode(images), images.dtype)
        projected = tf.reduce_sum(latent * probe)
    gradient = tape.gradient(projected, images)
    return latent, tf.reduce_sum(tf.square(gradient), axis=(1, 2, 3))


class ContractionPenalty(keras.layers.Layer):
    """Applies the encoder and, in training, adds its Jacobian's squared norm to the loss; has no weights of its own."""

    def __init__(self, encoder: keras.Model, weight: float) -> None:
        super().__init__(dtype="float32")
        self._encoder = encoder
        self._weight = weight
        self._noise = Noise()

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return self._encoder(images)
        probe = tf.sign(self._noise(tf.zeros([tf.shape(images)[0], self._encoder.output_shape[-1]])))
        latent, norm = squared_jacobian_norm(self._encoder, images, probe)
        self.add_loss(self._weight * tf.reduce_mean(norm))
        return latent


class TransposedDense(keras.layers.Layer):
    """A dense layer with the transposed kernel of another layer and a bias of its own: [B, units] -> [B, inputs]."""

    def __init__(self, tied_to: keras.layers.Dense, *, activation: str) -> None:
        super().__init__()
        self._tied_to = tied_to
        self._activation = keras.activations.get(activation)

    def build(self, input_shape: tf.TensorShape) -> None:
        self._bias = self.add_weight(name="bias", shape=(self._tied_to.kernel.shape[0],), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self._activation(tf.matmul(inputs, self._tied_to.kernel, transpose_b=True) + self._bias)
