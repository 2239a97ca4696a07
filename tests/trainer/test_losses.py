"""Every per-image quantity against NumPy, scikit-learn or Keras."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from sklearn.metrics import mean_squared_error

from trainer.losses import binary_cross_entropy_per_image, error_map, error_per_image, ssim_per_image

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


def test_the_cross_entropy_is_keras_s():
    expected = keras.losses.binary_crossentropy(IMAGES.reshape(4, -1), RECONSTRUCTIONS.reshape(4, -1)).numpy()
    assert binary_cross_entropy_per_image(IMAGES, RECONSTRUCTIONS).numpy() == pytest.approx(expected, rel=1e-4)


def test_the_cross_entropy_stays_finite_at_certainty():
    zeros, ones = tf.zeros((1, 2, 2, 1)), tf.ones((1, 2, 2, 1))
    assert np.isfinite(binary_cross_entropy_per_image(ones, zeros).numpy()).all()


def test_identical_images_have_ssim_one_and_small_images_are_allowed():
    small = IMAGES[:, :8, :8, :1]
    assert ssim_per_image(small, small).numpy() == pytest.approx(np.ones(4))
    assert (ssim_per_image(IMAGES, RECONSTRUCTIONS).numpy() < 0.2).all()
