"""`denoising`: in training the encoder sees a corrupted image, and the target is the clean one.

Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders",
doi:10.1145/1390156.1390294; 2010, "Stacked Denoising Autoencoders", JMLR 11:3371-3408.
"""

import tensorflow as tf
import tf_keras as keras

from trainer.autoencoder import Autoencoder, Shape
from trainer.families.body import body_decoder, body_encoder
from trainer.families.noise import Noise
from trainer.model_settings import CorruptionSettings, ModelSettings


def denoising(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """Any body; nothing is corrupted at inference."""
    encoder = body_encoder(shape, settings, settings.latent_size)
    decoder = body_decoder(shape, settings)
    image = keras.layers.Input(shape)
    corrupted = Corruption(settings.corruption or CorruptionSettings())(image)
    return Autoencoder(encoder, decoder, keras.Model(image, decoder(encoder(corrupted)), name="autoencoder"))


class Corruption(keras.layers.Layer):
    """Damages normalised images [B, H, W, C] in training; a pixel's channels share its fate.

    `gaussian` adds noise whose standard deviation is `amount`; `masking` sets the share `amount` of the pixels to 0;
    `salt_and_pepper` sets that share to the lowest or the highest value in the batch, at random.
    """

    def __init__(self, settings: CorruptionSettings) -> None:
        super().__init__()
        self._settings = settings
        self._noise = Noise()

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return images
        kind, amount = self._settings.kind, self._settings.amount
        if kind == "gaussian":
            return images + amount * self._noise(images)
        uniform = _uniform(self._noise(images[..., :1]))
        if kind == "masking":
            return tf.where(uniform < amount, 0.0, images)
        pepper = tf.where(uniform < amount / 2.0, tf.reduce_min(images), images)
        return tf.where(uniform > 1.0 - amount / 2.0, tf.reduce_max(images), pepper)


def _uniform(normal: tf.Tensor) -> tf.Tensor:
    """Standard normal -> uniform over [0, 1], by the normal distribution's cumulative function."""
    return 0.5 * (1.0 + tf.math.erf(normal / 2.0**0.5))
