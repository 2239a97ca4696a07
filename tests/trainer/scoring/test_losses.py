"""Every per-image quantity against NumPy, scikit-learn or Keras."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from sklearn.metrics import mean_absolute_error, mean_squared_error

from trainer.scoring.losses import (
    LOSSES,
    absolute_error_per_image,
    binary_cross_entropy_per_image,
    error_map,
    error_per_image,
    ssim_per_image,
    weighted_loss,
)
from trainer.settings.trainer import TrainerSettings

RANDOM = np.random.default_rng(2)
IMAGES = RANDOM.random((4, 16, 12, 3)).astype(np.float32)
RECONSTRUCTIONS = RANDOM.random((4, 16, 12, 3)).astype(np.float32)


def test_the_error_is_the_mean_squared_error_of_each_image():
    expected = [mean_squared_error(a.ravel(), b.ravel()) for a, b in zip(IMAGES, RECONSTRUCTIONS, strict=True)]
    assert error_per_image(IMAGES, RECONSTRUCTIONS).numpy() == pytest.approx(expected, rel=1e-6)


def test_the_error_map_averages_to_the_error():
    per_pixel = error_map(IMAGES, RECONSTRUCTIONS).numpy()
    assert per_pixel.shape == (4, 16, 12)
    assert per_pixel.mean(axis=(1, 2)) == pytest.approx(error_per_image(IMAGES, RECONSTRUCTIONS).numpy(), rel=1e-6)


def test_the_cross_entropy_matches_keras():
    expected = keras.losses.binary_crossentropy(IMAGES.reshape(4, -1), RECONSTRUCTIONS.reshape(4, -1)).numpy()
    assert binary_cross_entropy_per_image(IMAGES, RECONSTRUCTIONS).numpy() == pytest.approx(expected, rel=1e-4)


def test_the_cross_entropy_stays_finite_at_certainty():
    zeros, ones = tf.zeros((1, 2, 2, 1)), tf.ones((1, 2, 2, 1))
    assert np.isfinite(binary_cross_entropy_per_image(ones, zeros).numpy()).all()
    assert np.isfinite(binary_cross_entropy_per_image(zeros, ones).numpy()).all()


def test_identical_images_have_ssim_one_and_small_images_are_allowed():
    for small in (IMAGES[:, :8, :8, :1], IMAGES[:, :8], IMAGES[:, :, :8]):
        assert ssim_per_image(small, small).numpy() == pytest.approx(np.ones(4))
    assert (ssim_per_image(IMAGES, RECONSTRUCTIONS).numpy() < 0.2).all()


def test_the_absolute_error_matches_scikit_learn():
    expected = [mean_absolute_error(a.ravel(), b.ravel()) for a, b in zip(IMAGES, RECONSTRUCTIONS, strict=True)]
    assert absolute_error_per_image(IMAGES, RECONSTRUCTIONS).numpy() == pytest.approx(expected, rel=1e-6)


def test_ssim_matches_the_formula_of_the_paper():
    """Wang et al. 2004: an 11-pixel Gaussian window with deviation 1.5, K1 0.01, K2 0.03, inside the image only."""
    window = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window = np.outer(window, window) / window.sum() ** 2

    def local_mean(channel):
        patches = np.lib.stride_tricks.sliding_window_view(channel, (11, 11))
        return (patches * window).sum(axis=(-2, -1))

    def ssim(a, b):
        mean_a, mean_b = local_mean(a), local_mean(b)
        variance_a, variance_b = local_mean(a * a) - mean_a**2, local_mean(b * b) - mean_b**2
        covariance = local_mean(a * b) - mean_a * mean_b
        luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        return (luminance * (2 * covariance + 0.03**2) / (variance_a + variance_b + 0.03**2)).mean()

    images = IMAGES.astype(np.float64)
    similar = 0.7 * images + 0.3 * RECONSTRUCTIONS
    expected = [np.mean([ssim(a[..., c], b[..., c]) for c in range(3)]) for a, b in zip(images, similar, strict=True)]
    assert ssim_per_image(IMAGES, similar.astype(np.float32)).numpy() == pytest.approx(expected, rel=1e-4)
    assert LOSSES["ssim"](IMAGES, similar.astype(np.float32)).numpy() == pytest.approx(1 - np.array(expected), rel=1e-4)


def test_a_loss_is_a_name_or_a_weighted_sum_of_names():
    by_name = TrainerSettings(loss="mae").loss
    weighted = TrainerSettings(loss={"mse": 0.8, "ssim": 0.2}).loss
    mse, ssim = (LOSSES[name](IMAGES, RECONSTRUCTIONS).numpy() for name in ("mse", "ssim"))
    assert weighted_loss(by_name)(IMAGES, RECONSTRUCTIONS).numpy() == pytest.approx(
        np.abs(IMAGES - RECONSTRUCTIONS).mean(axis=(1, 2, 3)), rel=1e-5
    )
    assert weighted_loss(weighted)(IMAGES, RECONSTRUCTIONS).numpy() == pytest.approx(0.8 * mse + 0.2 * ssim, rel=1e-6)


@pytest.mark.parametrize("loss", ["mes", {}, {"mse": 0}, {"mse": -1}, {"psnr": 1.0}, 3])
def test_an_invalid_loss_is_refused(loss):
    with pytest.raises(ValueError, match="loss"):
        TrainerSettings(loss=loss)
