"""Thresholds from cross-fitted scores keep the false-alarm rate; scores that need more than the map are refused."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.families.feature_fit import fit_linear, surroundings
from trainer.scoring.calibration import conformal_threshold
from trainer.scoring.cross_fitting import OF_MAPS, cross_fitted_scores
from trainer.scoring.learners import ScoreError
from trainer.scoring.scores import FittedScore, fit_scores
from trainer.settings.calibration import CalibrationSettings

IMAGES, RATE, FRESH = 30, 0.1, 50


def maps_of(count, random):
    """Feature maps [count, 4, 4, 6] with three common directions, different noise at each position, and outliers."""
    common = random.standard_normal((count, 1, 1, 3)) @ np.random.default_rng(9).standard_normal((3, 6))
    noise = random.standard_t(5, (count, 4, 4, 6)) * np.linspace(0.2, 1.0, 16).reshape(1, 4, 4, 1)
    return (common + noise).astype(np.float32)


def deviations(maps, fitted):
    """The model's error map [n, 4, 4] of new maps: how far the larger of both errors is from what is usual."""
    centred = maps.reshape(len(maps), -1) - fitted.whole_mean
    residual = centred - centred @ fitted.whole_axes @ fitted.whole_axes.T
    as_a_whole = np.square(residual).reshape(maps.shape).mean(axis=-1)
    around = (maps @ fitted.axes).reshape(len(maps), 16, -1)[:, surroundings(4, 4)].reshape(len(maps), 16, -1)
    by_surroundings = np.square(maps - (around @ fitted.kernel).reshape(maps.shape)).mean(axis=-1)
    errors = np.stack([by_surroundings, as_a_whole], axis=-1)
    return ((errors - fitted.usual) / fitted.spread).max(axis=-1)


def positive(deviations):
    return np.maximum(deviations + 3.0, 0.0).astype(np.float32)


@pytest.mark.parametrize("name", ["worst_pixels", "standardised_patch"])
def test_the_share_of_alarms_and_of_images_with_anomalous_pixels_over_200_draws_is_near_the_rate(name):
    settings, alarms, flagged = CalibrationSettings(score=name, false_alarm_rate=RATE), [], []
    for draw in range(200):
        random = np.random.default_rng(draw)
        maps, fresh = maps_of(IMAGES, random), maps_of(FRESH, random)
        fitted = fit_linear(maps, np.arange(IMAGES), latent_dim=4, components=3)
        unseen = tf.constant(positive(fitted.unseen))
        scores, peaks = cross_fitted_scores(name, settings, unseen, (4, 4, 1))
        blank = tf.zeros((FRESH, 4, 4, 1))
        outputs = {"feature_error": tf.constant(positive(deviations(fresh, fitted))), "reconstruction": blank}
        learned = fit_scores([name], settings, lambda own=(blank, outputs): iter([own]), unseen)[name]
        score = FittedScore(name, settings, learned)
        alarms.append(np.mean(score(blank, outputs).numpy() > conformal_threshold(scores, RATE)))
        anomalous = score.anomaly_map(blank, outputs).numpy() > conformal_threshold(peaks, RATE)
        flagged.append(np.mean(anomalous.any(axis=(1, 2))))
    assert 0.5 * RATE < np.mean(alarms) <= 1.2 * RATE
    assert 0.5 * RATE < np.mean(flagged) <= 1.2 * RATE


def test_a_score_that_needs_more_than_the_error_map_is_refused_with_those_that_do_not():
    with pytest.raises(
        ScoreError, match=r"latent_distance cannot be calibrated with fewer than 200 .*use auto, worst_pix"
    ):
        cross_fitted_scores("latent_distance", CalibrationSettings(), tf.ones((3, 4, 4)), (4, 4, 1))


def test_an_image_does_not_take_part_in_what_its_score_learns():
    """Only the first image differs, so its score must not depend on a spread to which it would add its own."""
    maps = np.ones((9, 4, 4), np.float32) + 0.01 * np.random.default_rng(0).random((9, 4, 4), np.float32)
    scores = []
    for height in (10.0, 1000.0):
        maps[0] = height
        scores.append(cross_fitted_scores("weighted_error", CalibrationSettings(), tf.constant(maps), (4, 4, 1))[0])
    assert scores[1][0] / scores[0][0] == pytest.approx(100.0, rel=1e-3)
    assert set(OF_MAPS) >= {"weighted_error"}
