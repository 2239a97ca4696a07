"""What every family builds, and what training, scoring and export rely on."""

import math
from dataclasses import dataclass

import tensorflow as tf
import tf_keras as keras

Shape = tuple[int, int, int]
"""(height, width, channels) of an image."""


@dataclass(frozen=True)
class Autoencoder:
    """Three Keras models that share weights.

    `encoder`: normalised [B, H, W, C] -> latent [B, Z]. `decoder`: latent -> [B, H, W, C] in [0, 1]. `model`: the
    decoder after the encoder, and what `fit` trains: whatever a family adds to training (noise, corrupted input,
    penalties) lies inside it and is off at inference. `divergence`: normalised images -> KL [B] in nats of the latent's
    distribution from N(0, I), for a family whose latent has one.
    """

    encoder: keras.Model
    decoder: keras.Model
    model: keras.Model
    divergence: keras.Model | None = None

    @property
    def latent_dim(self) -> int:
        """Numbers in the latent of one image."""
        return int(self.encoder.output_shape[-1])


def join(encoder: keras.Model, decoder: keras.Model, *, latent: tf.Tensor | None = None) -> Autoencoder:
    """`latent`: what the decoder is trained on, where it is not the encoder's output itself."""
    model = keras.Model(encoder.input, decoder(encoder.output if latent is None else latent), name="autoencoder")
    return Autoencoder(encoder, decoder, model)


def weight_per_value(weight: float, shape: Shape) -> float:
    """A penalty's weight beside a loss that is the mean over an image's values, from that beside their sum.

    Papers sum over pixels and our losses average: so a weight means the same at every size of image.
    """
    return weight / math.prod(shape)
