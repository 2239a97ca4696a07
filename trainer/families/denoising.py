"""`denoising`: in training the encoder gets a corrupted image, and the target is the clean one.

Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders",
doi:10.1145/1390156.1390294; 2010, "Stacked Denoising Autoencoders", JMLR 11:3371-3408.
"""

import math

import tensorflow as tf
import tf_keras as keras

from trainer.families.autoencoder import Autoencoder, Shape
from trainer.families.body import body_decoder, body_encoder
from trainer.families.noise import Noise
from trainer.settings.model import CorruptionSettings, ModelSettings

_BLOCK_SHARES = (1 / 7, 1 / 4, 1 / 2)
"""Sides of a block relative to the image's shorter side; each image gets one of them at random."""


def denoising(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """Either kind of body; nothing is corrupted at inference."""
    encoder = body_encoder(shape, settings, settings.latent_size)
    decoder = body_decoder(shape, settings)
    image = keras.layers.Input(shape)
    corrupted = Corruption(settings.corruption or CorruptionSettings())(image)
    return Autoencoder(encoder, decoder, keras.Model(image, decoder(encoder(corrupted)), name="autoencoder"))


class Corruption(keras.layers.Layer):
    """Corrupts normalised images [B, H, W, C] in training, all channels of a pixel alike.

    `gaussian` adds noise whose standard deviation is `amount`; `masking` sets the share `amount` of the pixels to 0;
    `salt_and_pepper` sets that share to the lowest or the highest value in the batch, at random; `patches` replaces
    that share of square blocks by the same part of another image of the batch, randomly mirrored or transposed.
    """

    def __init__(self, settings: CorruptionSettings) -> None:
        super().__init__(dtype="float32")
        self._settings = settings
        self._noise = Noise()

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return images
        kind, amount = self._settings.kind, self._settings.amount
        if kind == "gaussian":
            return images + amount * self._noise(images)
        if kind == "patches":
            return tf.where(self._block_mask(images, amount), self._turned(tf.roll(images, 1, axis=0)), images)
        uniform = self._noise.uniform((*_sizes(images), 1))
        if kind == "masking":
            return tf.where(uniform < amount, 0.0, images)
        pepper = tf.where(uniform < amount / 2.0, tf.reduce_min(images), images)
        return tf.where(uniform > 1.0 - amount / 2.0, tf.reduce_max(images), pepper)

    def _block_mask(self, images: tf.Tensor, amount: float) -> tf.Tensor:
        """Which pixels of images [B, H, W, C] are replaced: bool [B, H, W, 1]."""
        count, height_px, width_px = _sizes(images)
        masks = []
        for share in _BLOCK_SHARES:
            side_px = max(1, round(share * min(height_px, width_px)))
            blocks = self._noise.uniform((count, math.ceil(height_px / side_px), math.ceil(width_px / side_px), 1))
            pixels = tf.repeat(tf.repeat(blocks < amount, side_px, axis=1), side_px, axis=2)
            masks.append(pixels[:, :height_px, :width_px])
        choice = tf.cast(len(masks) * self._noise.uniform((count,)), tf.int32)
        return tf.gather(tf.stack(masks, axis=1), choice, axis=1, batch_dims=1)

    def _turned(self, images: tf.Tensor) -> tf.Tensor:
        """Images mirrored along either axis at random and, if they are square, transposed at random."""
        coins = self._noise.uniform((3, tf.shape(images)[0], 1, 1, 1)) < 0.5
        images = tf.where(coins[0], tf.reverse(images, [1]), images)
        images = tf.where(coins[1], tf.reverse(images, [2]), images)
        if images.shape[1] != images.shape[2]:
            return images
        return tf.where(coins[2], tf.transpose(images, [0, 2, 1, 3]), images)


def _sizes(images: tf.Tensor) -> tuple[tf.Tensor, int, int]:
    return tf.shape(images)[0], images.shape[1], images.shape[2]
