"""The networks that every family builds, and that training, scoring and export use."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tensorflow as tf
import tf_keras as keras

if TYPE_CHECKING:
    from trainer.families.features import FeatureErrors

Shape = tuple[int, int, int]
"""(height, width, channels) of an image."""


@dataclass(frozen=True)
class Autoencoder:
    """Keras models that share weights.

    `encoder`: normalised [B, H, W, C] -> latent [B, Z]. `decoder`: latent -> [B, H, W, C] in [0, 1]. `model`: the
    decoder applied to the encoder's output, which `fit` trains; it contains whatever a family adds to training (noise,
    corrupted input, penalties), which is off at inference. `divergence`: normalised images -> KL divergence [B] in nats
    of the latent's distribution from N(0, I), if the family's latent has a distribution. `feature_errors`: normalised
    images -> latent and error of each position of feature maps, if the family reconstructs those.
    """

    encoder: keras.Model
    decoder: keras.Model
    model: keras.Model
    divergence: keras.Model | None = None
    feature_errors: "FeatureErrors | None" = None

    @property
    def latent_dim(self) -> int:
        """Numbers in the latent of an image."""
        return int(self.encoder.output_shape[-1])


def join(encoder: keras.Model, decoder: keras.Model, *, latent: tf.Tensor | None = None) -> Autoencoder:
    """Connect a decoder to `latent` or, without it, to the encoder's output."""
    model = keras.Model(encoder.input, decoder(encoder.output if latent is None else latent), name="autoencoder")
    return Autoencoder(encoder, decoder, model)


def weight_per_value(weight: float, shape: Shape) -> float:
    """Convert the weight of a penalty from a loss summed over an image's values to their mean.

    Papers sum over pixels, whereas our losses average. With this conversion a weight has the same effect as in the
    papers, whatever the image's size.
    """
    return weight / math.prod(shape)
