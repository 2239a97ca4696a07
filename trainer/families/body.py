"""The network inside `denoising`, `variational` and `super_resolution`: fully connected or residual."""

from collections.abc import Callable
from typing import Any

import tf_keras as keras

from trainer.families.autoencoder import Autoencoder, Shape
from trainer.families.dense import dense_decoder, dense_encoder
from trainer.families.family import Images, TrainingImages
from trainer.families.linear_path import has_linear_path, start_as_pca
from trainer.families.residual import ResidualDecoder, residual_decoder, residual_encoder, start_at_mean_colour
from trainer.settings.model import ModelSettings


def body_encoder(shape: Shape, settings: ModelSettings, outputs: int) -> keras.Model:
    """Normalised [B, H, W, C] -> [B, outputs]: fully connected if there are `hidden_units`, otherwise residual."""
    if settings.hidden_units:
        return dense_encoder(shape, settings, outputs)
    return residual_encoder(shape, settings, outputs)


def body_decoder(shape: Shape, settings: ModelSettings) -> keras.Model:
    """Latent [B, Z] -> [B, H, W, C] in [0, 1]; the same kind of network as `body_encoder`."""
    if settings.hidden_units:
        return dense_decoder(shape, settings)
    return residual_decoder(shape, settings)


def start_body(autoencoder: Autoencoder, images: TrainingImages, to_pixels: Callable[[Images], Any]) -> None:
    """Start a linear path as PCA, or else a residual body at the images' mean colour; keep other random weights."""
    if has_linear_path(autoencoder):
        start_as_pca(autoencoder, images, to_pixels)
    elif isinstance(autoencoder.decoder, ResidualDecoder):
        start_at_mean_colour(autoencoder, images, to_pixels)
