"""The linear path starts as scikit-learn's PCA, learns, and leaves the tutorials' presets as they are."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from trainer.data.dataset import ImageSet, PixelConstants
from trainer.families.registry import started_autoencoder
from trainer.fitting.tracing import keep_autograph_out
from trainer.fitting.training_loop import train_autoencoder
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

keep_autograph_out()
RANDOM = np.random.default_rng(2)
ODD = ImageSettings(height_px=13, width_px=9, channels=3)
ZSCORE = PixelConstants(np.array([0.2, 0.5, 0.4], np.float32), np.array([0.1, 0.3, 0.2], np.float32))
NETWORKS = (
    {"preset": "residual", "filters": [8]},
    {"preset": "deep", "loss": "mse", "linear_path": True},
    {"preset": "dense", "loss": "mse", "linear_path": True},
    {"preset": "denoising", "filters": [8], "linear_path": True},
    {"preset": "denoising", "hidden_units": [16], "linear_path": True},
)


def colour_images(count):
    """Mixtures of six patterns with noise, some values beyond [0, 1] cut off."""
    patterns = np.random.default_rng(0).random((6, *ODD.shape))
    mixed = np.tensordot(RANDOM.dirichlet(np.ones(6), count), patterns, axes=1)
    return np.clip(2 * mixed - 0.5 + 0.05 * RANDOM.standard_normal(mixed.shape), 0, 1).astype(np.float32)


def started(pixels, constants=ZSCORE, image=ODD, latent_dim=4, **settings):
    keras.utils.set_random_seed(0)
    settings = TrainerSettings.model_validate({"latent_dim": latent_dim, **settings})
    images = ImageSet(len(pixels), pixels.shape[1:], np.asarray(constants.normalise(pixels)))
    return started_autoencoder(image, settings, images, constants.to_pixels)


def by_pca(train, images, components):
    pca = PCA(components, svd_solver="full").fit(train.reshape(len(train), -1))
    return pca.inverse_transform(pca.transform(images.reshape(len(images), -1))).reshape(images.shape)


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_a_started_network_reconstructs_as_pca_does(settings):
    train, new = colour_images(60), colour_images(20)
    autoencoder = started(train, **settings)
    expected = np.clip(by_pca(train, new, 4), 0, 1)
    assert autoencoder.model(ZSCORE.normalise(new)).numpy() == pytest.approx(expected, abs=1e-4)
    latents = autoencoder.encoder(ZSCORE.normalise(train)).numpy()
    assert np.cov(latents.T) == pytest.approx(np.eye(4), abs=0.02)


def test_with_cross_entropy_the_start_keeps_a_hundredth_away_from_black_and_white():
    train = colour_images(60)
    autoencoder = started(train, preset="residual", filters=[8], loss="bce")
    expected = np.clip(by_pca(train, train, 4), 0.01, 0.99)
    assert autoencoder.model(ZSCORE.normalise(train)).numpy() == pytest.approx(expected, abs=1e-4)


def test_with_fewer_images_than_latent_numbers_the_start_reconstructs_them_all():
    train = colour_images(6)
    autoencoder = started(train, preset="residual", filters=[8], latent_dim=9)
    assert autoencoder.model(ZSCORE.normalise(train)).numpy() == pytest.approx(train, abs=1e-3)


@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_images_that_are_all_alike_start_at_that_image(constant):
    train = np.full((3, *ODD.shape), constant, np.float32)
    autoencoder = started(train, preset="residual", filters=[8])
    assert autoencoder.model(ZSCORE.normalise(train)).numpy() == pytest.approx(train, abs=1e-4)


def test_the_path_computes_in_float32_even_in_mixed_precision():
    train = colour_images(60)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        autoencoder = started(train, preset="residual", filters=[8])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    expected = np.clip(by_pca(train, train, 4), 0, 1)
    assert autoencoder.model(ZSCORE.normalise(train)).numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_the_network_learns_what_pca_leaves_over(settings):
    """On every digit the error falls below PCA's, which a quarter of the images are held out to measure."""
    pixels = (load_digits().images[..., np.newaxis] / 16.0).astype(np.float32)
    train, new = pixels[:1300], pixels[1300:]
    unit = PixelConstants(np.zeros(1, np.float32), np.ones(1, np.float32))
    given = {"latent_dim": 8, "batch_size": 32, "epochs": 6, "corruption": {"amount": 0.05}, **settings}
    if settings["preset"] != "denoising":
        del given["corruption"]
    autoencoder = started(train, unit, ImageSettings(), **given)
    before = [weight.numpy() for weight in autoencoder.model.trainable_variables]
    train_autoencoder(
        autoencoder,
        *(ImageSet(len(part), (8, 8, 1), part) for part in (train, new)),
        unit,
        TrainerSettings.model_validate(given),
        seed=1,
    )
    error = float(tf.reduce_mean((autoencoder.model(new) - new) ** 2))
    assert error < 0.95 * ((by_pca(train, new, 8) - new) ** 2).mean()
    changed = [
        not np.array_equal(old, new.numpy())
        for old, new in zip(before, autoencoder.model.trainable_variables, strict=True)
    ]
    assert all(changed), "every weight trains, those of the path and of the network"


def plain_layers(preset):
    """The tutorials' networks in plain Keras: (encoder, decoder)."""
    layers = keras.layers
    hidden = [128] if preset == "deep" else []
    return (
        keras.Sequential(
            [
                layers.Input((28, 28, 1)),
                layers.Flatten(),
                *(layers.Dense(units, activation="relu") for units in hidden),
                layers.Dense(32, activation="relu" if preset == "dense" else None),
            ]
        ),
        keras.Sequential(
            [
                layers.Input((32,)),
                *(layers.Dense(units, activation="relu") for units in hidden),
                layers.Dense(784, activation="sigmoid"),
                layers.Reshape((28, 28, 1)),
            ]
        ),
    )


@pytest.mark.parametrize("preset", ["dense", "deep"])
def test_the_networks_of_the_tutorials_stay_those_of_plain_keras(preset):
    pixels = RANDOM.random((5, 28, 28, 1)).astype(np.float32)
    unit = PixelConstants(np.zeros(1, np.float32), np.ones(1, np.float32))
    autoencoder = started(pixels, unit, ImageSettings(height_px=28, width_px=28), 32, preset=preset)
    keras.utils.set_random_seed(0)
    encoder, decoder = plain_layers(preset)
    assert np.array_equal(autoencoder.model(pixels), decoder(encoder(pixels)))


@pytest.mark.parametrize("preset", ["dense", "deep", "conv", "sparse", "contractive"])
def test_the_training_of_the_tutorials_stays_as_it_was(preset):
    settings = TrainerSettings.model_validate({"preset": preset})
    assert (settings.batch_size, settings.epochs, settings.loss) == (128, 5, {"bce": 1.0})
    assert (settings.linear_path, settings.keeps_best) == (False, False)
