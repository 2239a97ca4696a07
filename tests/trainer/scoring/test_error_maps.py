"""The error map: a family's own one replaces the squared error in every score, map and metric."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import uniform_filter

from trainer.scoring.error_maps import full_size_map, map_of
from trainer.scoring.scores import fit_score
from trainer.settings.calibration import CalibrationSettings

RANDOM = np.random.default_rng(9)
PIXELS = RANDOM.random((5, 32, 64, 3)).astype(np.float32)
RECONSTRUCTION = RANDOM.random((5, 32, 64, 3)).astype(np.float32)
FEATURE_ERROR = RANDOM.random((5, 8, 16)).astype(np.float32)
OUTPUTS = {"reconstruction": tf.constant(RECONSTRUCTION), "feature_error": tf.constant(FEATURE_ERROR)}


def scored(name, **settings):
    score = fit_score(name, CalibrationSettings(**settings), lambda: iter([(tf.constant(PIXELS), OUTPUTS)]))
    return score(tf.constant(PIXELS), OUTPUTS).numpy()


def test_without_a_map_of_its_own_a_model_has_the_squared_error_of_each_pixel():
    maps = map_of(tf.constant(PIXELS), {"reconstruction": OUTPUTS["reconstruction"]})
    assert np.allclose(maps, ((PIXELS - RECONSTRUCTION) ** 2).mean(axis=-1), atol=1e-6)


def test_scores_of_maps_aggregate_the_family_s_own_map():
    assert scored("error") == pytest.approx(FEATURE_ERROR.mean(axis=(1, 2)), rel=1e-5)
    worst = np.sort(FEATURE_ERROR.reshape(5, -1), axis=1)[:, -13:].mean(axis=1)  # 10 % of 128 positions
    assert scored("worst_pixels", worst_percent=10) == pytest.approx(worst, rel=1e-5)
    weights = FEATURE_ERROR.mean(axis=0)
    expected = (FEATURE_ERROR / (weights + weights.mean())).mean(axis=(1, 2))
    assert scored("weighted_error") == pytest.approx(expected, rel=1e-4)


def test_patches_are_scaled_to_the_map():
    """Twelve of 32 pixels are three of the map's eight rows."""
    means = np.stack([uniform_filter(one.astype(np.float64), 3)[1:-1, 1:-1] for one in FEATURE_ERROR])
    assert scored("patch_max", patch_px=12) == pytest.approx(means.max(axis=(1, 2)), rel=1e-5)


@pytest.mark.parametrize("name", ["local_ssim", "blurred_error", "cosine_distance"])
def test_scores_of_the_reconstruction_ignore_the_map(name):
    score = fit_score(name, CalibrationSettings(), lambda: iter([]))
    without = score(tf.constant(PIXELS), {"reconstruction": OUTPUTS["reconstruction"]}).numpy()
    assert np.array_equal(scored(name), without)


def test_the_exported_map_has_the_image_s_size_and_keeps_a_constant():
    enlarged = full_size_map(tf.constant(PIXELS), OUTPUTS).numpy()
    assert enlarged.shape == (5, 32, 64)
    assert enlarged.max() <= FEATURE_ERROR.max()
    assert enlarged.mean() == pytest.approx(FEATURE_ERROR.mean(), abs=0.01)
    flat = {**OUTPUTS, "feature_error": tf.fill([5, 8, 16], 0.25)}
    assert np.allclose(full_size_map(tf.constant(PIXELS), flat), 0.25)


def test_the_exported_map_is_unchanged_if_it_has_the_image_s_size():
    own = {"feature_error": tf.constant(RANDOM.random((5, 32, 64)).astype(np.float32))}
    assert np.array_equal(full_size_map(tf.constant(PIXELS), own), own["feature_error"])


@pytest.mark.parametrize("patch_px", [3, 8, 12])
def test_a_window_s_value_lies_at_its_centre_however_many_positions_it_has(patch_px):
    """The centre of mass of one deviating position is where it is: windows of 1, 2 and 3 positions of 4 x 4 pixels."""
    maps = np.zeros((1, 8, 16), np.float32)
    maps[0, 4, 7] = 1.0
    outputs = {"feature_error": tf.constant(maps)}
    score = fit_score("patch_max", CalibrationSettings(patch_px=patch_px), lambda: iter([]))
    shown = score.anomaly_map(tf.constant(PIXELS[:1]), outputs).numpy()[0]
    rows, columns = np.arange(32) + 0.5, np.arange(64) + 0.5
    assert shown.sum(axis=1) @ rows / shown.sum() == pytest.approx(4.5 * 4, abs=0.6)
    assert shown.sum(axis=0) @ columns / shown.sum() == pytest.approx(7.5 * 4, abs=0.6)


def test_maps_of_unseen_images_replace_those_of_the_training_images():
    unseen = tf.Variable(RANDOM.random((100, 8, 16)).astype(np.float32) + 1.0)
    training = lambda: iter([(tf.constant(PIXELS), OUTPUTS)])  # noqa: E731
    score = fit_score("weighted_error", CalibrationSettings(), training, unseen)
    usual = unseen.numpy().mean(axis=0)
    expected = (FEATURE_ERROR / (usual + usual.mean())).mean(axis=(1, 2))
    assert score(tf.constant(PIXELS), OUTPUTS).numpy() == pytest.approx(expected, rel=1e-4)
