"""All model families by the name of their preset."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainer.families.autoencoder import Autoencoder
from trainer.families.body import start_body
from trainer.families.contractive import contractive
from trainer.families.convolutional import convolutional
from trainer.families.denoising import denoising
from trainer.families.dense import fully_connected
from trainer.families.family import Family, Images, TrainingImages
from trainer.families.features import features, fit_features
from trainer.families.residual import residual
from trainer.families.sparse import sparse
from trainer.families.super_resolution import super_resolution
from trainer.families.variational import variational
from trainer.settings.image import ImageSettings
from trainer.settings.model import ModelSettings

FAMILIES: dict[str, Family] = {
    "dense": Family(fully_connected, start=start_body),
    "deep": Family(fully_connected, start=start_body),
    "conv": Family(convolutional, convolutional=True),
    "sparse": Family(sparse),
    "denoising": Family(denoising, convolutional=True, start=start_body),
    "contractive": Family(contractive),
    "variational": Family(variational, convolutional=True, start=start_body),
    "residual": Family(residual, convolutional=True, start=start_body),
    "features": Family(features, convolutional=True, start=fit_features, closed_form=True),
    "super_resolution": Family(super_resolution, convolutional=True, start=start_body),
}
"""`trainer.settings.families` has an entry for each."""


def build_autoencoder(image: ImageSettings, settings: ModelSettings) -> Autoencoder:
    """The autoencoder of images, or of tiles, that `settings` describe, with random weights from the global seed."""
    autoencoder = FAMILIES[settings.preset].build(image.network_shape, settings)
    if autoencoder.feature_errors is not None:
        autoencoder.feature_errors.depth = image.depth
    return autoencoder


def started_autoencoder(
    image: ImageSettings, settings: ModelSettings, images: TrainingImages, to_pixels: Callable[[Images], Any]
) -> Autoencoder:
    """The autoencoder as training begins: random weights, and what its family takes from the training images."""
    autoencoder = build_autoencoder(image, settings)
    FAMILIES[settings.preset].start(autoencoder, images, to_pixels)
    return autoencoder


def has_closed_form(settings: ModelSettings) -> bool:
    """Whether the family's start is all there is to training."""
    return FAMILIES[settings.preset].closed_form


def compiles_faster(settings: ModelSettings) -> bool:
    """Whether XLA speeds up training: always on a GPU; on a CPU only without convolutions, which it slows down."""
    convolutional = FAMILIES[settings.preset].convolutional and not settings.hidden_units
    has_convolutions = convolutional or "ssim" in settings.loss
    return not has_convolutions or bool(tf.config.list_physical_devices("GPU"))
