"""Presets have the tutorials' layers, fit images of any size, and start as their family defines."""

import numpy as np
import pytest

from trainer.data.dataset import ImageSet
from trainer.families.registry import FAMILIES, build_autoencoder
from trainer.settings.families import FAMILY_SETTINGS
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

MNIST = ImageSettings(height_px=28, width_px=28)


def build(image=MNIST, **settings):
    return build_autoencoder(image, TrainerSettings.model_validate(settings))


def dense_parameters(*widths):
    return sum(a * b + b for a, b in zip(widths, widths[1:], strict=False))


def test_dense_is_784_32_784():
    assert build(preset="dense").model.count_params() == dense_parameters(784, 32, 784)


def test_deep_is_784_128_32_128_784():
    assert build(preset="deep").model.count_params() == dense_parameters(784, 128, 32, 128, 784)


def test_conv_squeezes_mnist_into_196_numbers():
    assert build(preset="conv").latent_dim == 7 * 7 * 4


@pytest.mark.parametrize("preset", ["dense", "deep", "conv", "residual"])
@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (9, 13, 3), (33, 7, 1)])
def test_reconstructions_have_the_size_of_the_image(preset, height, width, channels):
    image = ImageSettings(height_px=height, width_px=width, channels=channels)
    autoencoder = build(image, preset=preset, latent_dim=None if preset == "conv" else 7)
    batch = np.random.default_rng(0).random((2, *image.shape), np.float32)
    reconstruction = autoencoder.model(batch).numpy()
    assert reconstruction.shape == batch.shape
    assert reconstruction.min() >= 0
    assert reconstruction.max() <= 1


@pytest.mark.parametrize("preset", ["dense", "deep", "conv"])
def test_any_latent_size(preset):
    autoencoder = build(preset=preset, latent_dim=5)
    assert autoencoder.latent_dim == 5
    assert autoencoder.decoder.input_shape == (None, 5)


def test_the_model_is_the_decoder_applied_to_the_encoder():
    autoencoder = build(preset="conv")
    batch = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    assert np.array_equal(autoencoder.model(batch), autoencoder.decoder(autoencoder.encoder(batch)))


def test_every_family_has_settings_and_networks():
    assert list(FAMILIES) == list(FAMILY_SETTINGS)


def started(settings, pixels):
    """An autoencoder after its family's start on these training images."""
    autoencoder = build(ImageSettings(height_px=11, width_px=16, channels=3), latent_dim=4, **settings)
    before = autoencoder.model.get_weights()
    images = ImageSet(len(pixels), pixels.shape[1:], (pixels - 0.5) / 0.25)
    FAMILIES[settings["preset"]].start(autoencoder, images, lambda normalised: 0.25 * normalised + 0.5)
    return autoencoder, before


@pytest.mark.parametrize("preset", ["residual", "denoising", "variational", "super_resolution"])
@pytest.mark.parametrize("loss", ["mse", "bce", {"mse": 0.5, "mae": 0.5}])
def test_residual_decoders_start_at_the_mean_colour_of_the_training_images(preset, loss):
    colour = np.array([0.9, 0.5, 0.1], np.float32)
    pixels = colour + np.array([-0.05, 0.05], np.float32)[:, None, None, None] * np.ones((2, 11, 16, 3), np.float32)
    autoencoder, _ = started({"preset": preset, "loss": loss, "linear_path": False}, pixels)
    latents = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    assert np.abs(autoencoder.decoder(latents) - colour).max() < 1e-5


@pytest.mark.parametrize("settings", [{"preset": "dense"}, {"preset": "denoising", "hidden_units": [8]}])
def test_fully_connected_networks_start_from_random_weights(settings):
    autoencoder, before = started(settings, np.ones((2, 11, 16, 3), np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(before, autoencoder.model.get_weights(), strict=True))
