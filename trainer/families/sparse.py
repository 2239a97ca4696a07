"""`sparse`: only a few of an image's latent numbers are active.

L1 activity: Olshausen & Field 1996, "Emergence of simple-cell receptive field properties by learning a sparse code for
natural images", doi:10.1038/381607a0. KL activity: Ng 2011, "Sparse autoencoder", Stanford CS294A lecture notes.
"""

import tensorflow as tf
import tf_keras as keras

from trainer.families.autoencoder import Autoencoder, Shape, join, weight_per_value
from trainer.families.dense import dense_decoder, dense_encoder
from trainer.settings.model import ModelSettings, SparsitySettings

_EPSILON = 1e-6


def sparse(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """One layer each way. With L1 the decoder's weights are bounded; otherwise tiny latents would evade the penalty."""
    sparsity = settings.sparsity or SparsitySettings()
    rectified = sparsity.kind == "l1"
    encoder = dense_encoder(shape, settings, settings.latent_size, activation="relu" if rectified else "sigmoid")
    decoder = dense_decoder(shape, settings, bounded=rectified)
    latent = SparsityPenalty(sparsity, weight_per_value(sparsity.weight, shape))(encoder.output)
    return join(encoder, decoder, latent=latent)


def l1_activity(latent: tf.Tensor) -> tf.Tensor:
    """Sum of the absolute latent numbers, averaged over images: [B, Z] -> []."""
    return tf.reduce_mean(tf.reduce_sum(tf.abs(latent), axis=-1))


def kl_activity(latent: tf.Tensor, target: float) -> tf.Tensor:
    """Sum over units of KL(target || mean activity), as Bernoulli rates in nats: [B, Z] in [0, 1] -> []."""
    rate = tf.clip_by_value(tf.reduce_mean(latent, axis=0), _EPSILON, 1.0 - _EPSILON)
    return tf.reduce_sum(
        target * tf.math.log(target / rate) + (1.0 - target) * tf.math.log((1.0 - target) / (1.0 - rate))
    )


class SparsityPenalty(keras.layers.Layer):
    """Returns the latent unchanged and adds its activity to the loss."""

    def __init__(self, settings: SparsitySettings, weight: float) -> None:
        super().__init__(dtype="float32")
        self._settings = settings
        self._weight = weight

    def call(self, latent: tf.Tensor) -> tf.Tensor:
        by_l1 = self._settings.kind == "l1"
        activity = l1_activity(latent) if by_l1 else kl_activity(latent, self._settings.target)
        self.add_loss(self._weight * activity)
        return latent
