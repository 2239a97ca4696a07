"""Features are reconstructed as whole maps and from their surroundings: small and gross changes show; few images do."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from trainer.data.dataset import ImageSet
from trainer.families.registry import started_autoencoder
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

IMAGE = ImageSettings(height_px=64, width_px=64, channels=3)
STRIPES = (np.sin(np.arange(64) / 3.0) / 2 + 0.5).astype(np.float32)


def stripes(count, seed):
    """Vertical stripes of varying contrast and colour, with a little noise: [N, 64, 64, 3]."""
    random = np.random.default_rng(seed)
    contrast = random.uniform(0.4, 0.8, (count, 1, 1, 3))
    images = STRIPES[:, None] * contrast + 0.01 * random.standard_normal((count, 64, 64, 3))
    return np.clip(images, 0, 1).astype(np.float32)


def started(images, seed=0, **settings):
    keras.utils.set_random_seed(seed)
    images = ImageSet(len(images), images.shape[1:], images)
    settings = TrainerSettings.model_validate({"preset": "features", "latent_dim": 8, **settings})
    return started_autoencoder(IMAGE, settings, images, lambda pixels: pixels)


@pytest.fixture(scope="module")
def autoencoder():
    return started(stripes(40, 1))


def test_a_patch_that_does_not_belong_has_the_largest_error_where_it_is(autoencoder):
    image = stripes(1, 2)
    image[:, 40:56, 8:24] = 0.9
    errors = autoencoder.feature_errors(image)[1].numpy()[0]
    assert errors.shape == (8, 8)
    row, column = np.unravel_index(errors.argmax(), errors.shape)
    assert row in (4, 5, 6, 7)
    assert column in (0, 1, 2, 3)
    assert errors.max() > 5 * autoencoder.feature_errors(stripes(1, 3))[1].numpy().max()


def test_an_image_without_the_product_is_far_stranger_than_any_with_it():
    """Nothing in it contradicts what is around it: only a model that knows what belongs where finds it."""
    rows, columns = np.indices((64, 64))
    is_product = (np.hypot(rows - 32, columns - 32) < 20)[..., None]
    random = np.random.default_rng(10)

    def images(count, is_there):
        brightness = random.uniform(0.6, 0.8, (count, 1, 1, 1))
        drawn = np.where(is_product & is_there, brightness, 0.3) + 0.01 * random.standard_normal((count, 64, 64, 3))
        return np.clip(drawn, 0, 1).astype(np.float32)

    errors = started(images(40, True)).feature_errors
    normal, missing = images(20, True), images(20, False)
    half_hidden, elsewhere = normal.copy(), np.roll(normal, 16, axis=2)
    half_hidden[:, :, 32:] = 0.3
    worst = errors(normal)[1].numpy().max()
    for strange in (missing, half_hidden, elsewhere, np.zeros_like(normal), np.ones_like(normal)):
        assert errors(strange)[1].numpy().max(axis=(1, 2)).min() > 3 * worst


def test_the_error_of_unseen_images_is_one_on_average(autoencoder):
    unseen = autoencoder.feature_errors.unseen_maps.numpy()
    assert unseen.shape == (40, 8, 8)
    assert unseen.mean() == pytest.approx(1.0, rel=1e-4)
    assert 0.3 < autoencoder.feature_errors(stripes(20, 4))[1].numpy().mean() < 3.0


def test_the_decoder_draws_the_images(autoencoder):
    fresh = stripes(20, 5)
    drawn = autoencoder.model.predict(fresh, verbose=0)
    assert np.square(fresh - drawn).mean() < 0.3 * np.square(fresh - stripes(40, 1).mean(axis=0)).mean()


def test_an_image_is_judged_alike_alone_and_among_others(autoencoder):
    images = stripes(35, 6)  # more than two of the batches in which maps are computed
    together = autoencoder.feature_errors(images)[1].numpy()
    assert together[[0, 17, 34]] == pytest.approx(
        np.concatenate([autoencoder.feature_errors(images[[row]])[1].numpy() for row in (0, 17, 34)]), rel=1e-3
    )


def test_the_latent_is_the_encoders(autoencoder):
    images = stripes(3, 7)
    assert autoencoder.encoder(images).numpy() == pytest.approx(autoencoder.feature_errors(images)[0].numpy(), rel=1e-3)


def test_the_fit_is_determined_by_the_seed():
    """Of the random changes to the training images; other fits differ only in those."""
    image = stripes(1, 8)
    first, again, other = (started(stripes(20, 1), seed).feature_errors(image)[1].numpy() for seed in (1, 1, 2))
    assert first == pytest.approx(again, rel=1e-4)
    assert not np.allclose(first, other, rtol=1e-4)


def test_a_model_that_is_steady_against_light_raises_its_error_less():
    noise = 0.01 * np.random.default_rng(9).standard_normal((20, 64, 64, 3))
    images = np.clip(0.8 * STRIPES[:, None] + noise, 0, 1).astype(np.float32)
    darker, errors = images * np.float32(0.87), []
    for kinds in ([], ["light"]):
        measured = started(images, steady_against=kinds).feature_errors
        errors.append(measured(darker)[1].numpy().mean() / measured(images)[1].numpy().mean())
    assert errors[1] < 0.7 * errors[0]


def test_grey_images_and_two_images_are_enough():
    grey = ImageSettings(height_px=32, width_px=48, channels=1)
    images = np.random.default_rng(0).random((2, *grey.shape), np.float32)
    settings = TrainerSettings(preset="features")
    autoencoder = started_autoencoder(grey, settings, ImageSet(2, grey.shape, images), lambda pixels: pixels)
    assert np.isfinite(autoencoder.feature_errors(tf.constant(images))[1].numpy()).all()
    assert autoencoder.model(images).shape == images.shape
