"""`variational`: latents distributed like N(0, I), so that the decoder turns random numbers into new images.

Kingma & Welling 2014, "Auto-Encoding Variational Bayes", arXiv:1312.6114; `beta`: Higgins et al. 2017, "beta-VAE:
Learning Basic Visual Concepts with a Constrained Variational Framework", ICLR.
"""

import tensorflow as tf
import tf_keras as keras

from trainer.families.autoencoder import Autoencoder, Shape, weight_per_value
from trainer.families.body import body_decoder, body_encoder
from trainer.families.noise import Noise
from trainer.settings.model import ModelSettings


def variational(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """At inference the latent is the distribution's mean, and nothing is random.

    The Kullback-Leibler term is divided by the number of values of an image, because the reconstruction losses are
    means over them. With `bce` and a beta of 1 the loss is the paper's bound per value; with `mse`, beta is twice the
    assumed variance of a pixel.
    """
    body = body_encoder(shape, settings, 2 * settings.latent_size)
    mean, log_variance = Halves(dtype="float32")(body.output)
    encoder = keras.Model(body.input, mean, name="encoder")
    decoder = body_decoder(shape, settings)
    latent = Sample(weight_per_value(settings.beta, shape))([mean, log_variance])
    divergence = keras.Model(body.input, Divergence(dtype="float32")([mean, log_variance]), name="divergence")
    return Autoencoder(encoder, decoder, keras.Model(body.input, decoder(latent), name="autoencoder"), divergence)


def kl_from_standard_normal(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """KL(N(mean, variance) || N(0, I)) in nats: two [B, Z] -> [B]."""
    return 0.5 * tf.reduce_sum(tf.square(mean) + tf.exp(log_variance) - 1.0 - log_variance, axis=-1)


class Halves(keras.layers.Layer):
    """Splits [B, 2 Z] into mean and logarithm of the variance, each [B, Z]."""

    def call(self, parameters: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(parameters, 2, axis=-1)


class Divergence(keras.layers.Layer):
    """KL divergence from N(0, I) in nats: mean and logarithm of the variance, each [B, Z] -> [B]."""

    def call(self, distribution: list[tf.Tensor]) -> tf.Tensor:
        return kl_from_standard_normal(*distribution)


class Sample(keras.layers.Layer):
    """Draws a latent from the distribution in training, returns its mean at inference; adds the KL to the loss."""

    def __init__(self, weight: float) -> None:
        super().__init__(dtype="float32")
        self._weight = weight
        self._noise = Noise()

    def call(self, distribution: list[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        mean, log_variance = distribution
        self.add_loss(self._weight * tf.reduce_mean(kl_from_standard_normal(mean, log_variance)))
        if not training:
            return mean
        return mean + tf.exp(0.5 * log_variance) * self._noise(mean)
