"""Warns if training leaves most of the latent unused, which a user would otherwise notice by its error only."""

import logging
import math

import numpy as np

from trainer.data.dataset import Images
from trainer.families.autoencoder import Autoencoder
from trainer.families.linear_path import has_linear_path

_LOG = logging.getLogger(__name__)
_UNUSED_BELOW = 0.25
"""Effective dimension, relative to the latent's size, below which most of the latent is unused."""


def effective_dimension(latents: Images) -> float:
    """Effective number of directions in latents [N, Z]: (sum of the covariance's eigenvalues)^2 / sum of their squares.

    0 if the latents are all alike.
    """
    covariance = np.cov(latents.astype(np.float64), rowvar=False).reshape(latents.shape[1], -1)
    squares = float(np.sum(covariance**2))
    return float(np.trace(covariance)) ** 2 / squares if squares > 0.0 else 0.0


def warn_if_unused(autoencoder: Autoencoder, images: Images) -> None:
    """Warn if the latents of these training images have far fewer effective directions than they could have.

    Not if the latent is that of feature maps: it is fitted in closed form, also to changed copies of the images.
    """
    if autoencoder.feature_errors is not None:
        return
    dimension = effective_dimension(autoencoder.encoder.predict(images, verbose=0))
    if dimension >= _UNUSED_BELOW * min(autoencoder.latent_dim, len(images) - 1):
        return
    more = (
        "train for more epochs" if has_linear_path(autoencoder) else "set trainer.linear_path or train for more epochs"
    )
    _LOG.warning(
        "the images use only %.1f of the latent's %d numbers (effective dimension): if the error is low enough, lower "
        "trainer.latent_dim to %d; otherwise %s",
        *(dimension, autoencoder.latent_dim, max(1, math.ceil(2 * dimension)), more),
        extra={"notice": True},
    )
