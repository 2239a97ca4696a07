"""A latent that stays mostly unused is reported with the remedy."""

import dataclasses
import logging

import numpy as np
import pytest
import tf_keras as keras
from sklearn.decomposition import PCA

from trainer.families.autoencoder import join
from trainer.fitting.latent_use import effective_dimension, warn_if_unused

RANDOM = np.random.default_rng(4)


def linear_autoencoder(scales):
    """Its latent numbers are the pixels, multiplied by `scales`."""
    layers = keras.layers
    size = len(scales)
    encoder = keras.Sequential([layers.Input((1, size, 1)), layers.Flatten(), layers.Dense(size, use_bias=False)])
    encoder.set_weights([np.diag(scales).astype(np.float32)])
    return join(encoder, keras.Sequential([layers.Input((size,)), layers.Reshape((1, size, 1))]))


def test_the_effective_dimension_is_that_of_the_principal_components():
    latents = (RANDOM.standard_normal((300, 5)) * [5, 4, 1, 0.1, 0]).astype(np.float32)
    shares = PCA().fit(latents).explained_variance_ratio_
    assert effective_dimension(latents) == pytest.approx(1 / np.sum(shares**2), rel=1e-4)
    assert effective_dimension(np.ones((3, 2), np.float32)) == 0.0
    assert effective_dimension(latents[:, :1]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("used", "images", "warned"), [(8, 400, False), (3, 400, False), (1, 400, True), (8, 4, False), (0, 400, True)]
)
def test_a_latent_of_which_less_than_a_quarter_is_in_use_is_a_warning(used, images, warned, caplog):
    caplog.set_level(logging.WARNING)
    pixels = RANDOM.standard_normal((images, 1, 8, 1)).astype(np.float32)
    warn_if_unused(linear_autoencoder([1.0] * used + [0.0] * (8 - used)), pixels)
    assert bool(caplog.records) is warned
    if warned:
        [record] = caplog.records
        assert f"only {used:.1f} of the latent's 8 numbers" in record.getMessage()
        assert (
            f"lower trainer.latent_dim to {max(1, 2 * used)}; otherwise set trainer.linear_path" in record.getMessage()
        )


def test_the_latent_of_feature_maps_is_not_examined(caplog):
    fitted = dataclasses.replace(linear_autoencoder([1.0] + [0.0] * 7), feature_errors=lambda pixels: None)
    warn_if_unused(fitted, RANDOM.standard_normal((400, 1, 8, 1)).astype(np.float32))
    assert not caplog.records
