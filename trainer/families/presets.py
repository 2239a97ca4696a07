"""The presets by name: which family builds each, and whether XLA makes it faster."""

from collections.abc import Callable

import tensorflow as tf

from trainer.families.autoencoder import Autoencoder, Shape
from trainer.families.contractive import contractive
from trainer.families.convolutional import convolutional
from trainer.families.denoising import denoising
from trainer.families.dense import fully_connected
from trainer.families.residual import residual
from trainer.families.sparse import sparse
from trainer.families.super_resolution import super_resolution
from trainer.families.variational import variational
from trainer.settings.model import ModelSettings
from trainer.settings.trainer import ImageSettings

__all__ = ["Autoencoder", "build_autoencoder", "pays_to_compile"]

FAMILIES: dict[str, Callable[[Shape, ModelSettings], Autoencoder]] = {
    "dense": fully_connected,
    "deep": fully_connected,
    "conv": convolutional,
    "sparse": sparse,
    "denoising": denoising,
    "contractive": contractive,
    "variational": variational,
    "residual": residual,
    "super_resolution": super_resolution,
}


def build_autoencoder(image: ImageSettings, settings: ModelSettings) -> Autoencoder:
    """The preset that `settings` names, with fresh weights from the global seed."""
    return FAMILIES[settings.preset](image.shape, settings)


def pays_to_compile(settings: ModelSettings) -> bool:
    """Whether XLA speeds training up: on a CPU matrix products yes, convolutions no, they become slower."""
    return not settings.has_convolutions or bool(tf.config.list_physical_devices("GPU"))
