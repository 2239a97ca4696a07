"""The references' arithmetic, compared with the plainest possible loops and with scikit-learn."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.decomposition import PCA

from bench.detection import patchcore
from bench.detection.padim import gaussians_of
from bench.detection.patchcore import greedy_coreset, nearest_distances
from bench.detection.pixel_references import fit_nearest_neighbour, fit_principal_components

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((12, 5, 4, 3), np.float32)
STRANGE = RANDOM.random((3, 5, 4, 3), np.float32)


def in_batches(images):
    return lambda: iter(np.array_split(images, 5))


def test_padim_gives_each_position_the_distance_of_its_own_inverse_covariance():
    features = RANDOM.normal(size=(40, 6, 5)).astype(np.float32) * np.arange(1, 6, dtype=np.float32)
    probe = RANDOM.normal(size=(2, 6, 5)).astype(np.float32)
    expected = np.empty((2, 6))
    for position in range(6):
        of_position = features[:, position].astype(np.float64)
        inverse = np.linalg.inv(np.cov(of_position.T) + 0.01 * np.eye(5))
        for image in range(2):
            expected[image, position] = mahalanobis(probe[image, position], of_position.mean(axis=0), inverse)
    np.testing.assert_allclose(gaussians_of(in_batches(features)).distances(probe), expected, rtol=1e-4)


def test_padim_survives_more_features_than_images():
    features = RANDOM.normal(size=(4, 2, 30)).astype(np.float32)
    assert np.isfinite(gaussians_of(in_batches(features)).distances(features)).all()


def test_the_coreset_is_that_of_a_naive_greedy_loop():
    points = RANDOM.normal(size=(200, 7)).astype(np.float32)
    expected = [17]
    while len(expected) < 25:
        expected.append(int(np.argmax(cdist(points, points[expected]).min(axis=1))))
    assert greedy_coreset(points, 25, first=17).tolist() == expected


def test_the_coreset_never_repeats_a_point_even_among_equal_points():
    points = np.ones((9, 3), np.float32)
    assert sorted(greedy_coreset(points, 9, first=4).tolist()) == list(range(9))


def test_the_nearest_distance_is_euclidean():
    points, among = RANDOM.normal(size=(30, 6)), RANDOM.normal(size=(11, 6))
    np.testing.assert_allclose(nearest_distances(points, among), cdist(points, among).min(axis=1), rtol=1e-6)


def test_a_large_pool_is_drawn_with_equal_probability(monkeypatch):
    monkeypatch.setattr(patchcore, "_POOL", 50)
    patches = np.arange(500, dtype=np.float32).reshape(20, 5, 5, 1)
    counts = np.zeros(500)
    for seed in range(400):
        pool = patchcore._drawn(iter(np.array_split(patches, 7)), np.random.default_rng(seed))[:, 0].astype(int)
        assert len(set(pool.tolist())) == 50
        counts[pool] += 1
    by_position = counts.reshape(10, 50).sum(axis=1)  # 2,000 expected in each tenth of the stream, give or take 42
    assert np.abs(by_position - 2000).max() < 200


def test_a_small_pool_keeps_every_patch_in_order():
    patches = np.arange(60, dtype=np.float32).reshape(3, 4, 5, 1)
    drawn = patchcore._drawn(iter(np.array_split(patches, 2)), np.random.default_rng(0))
    assert drawn[:, 0].tolist() == list(range(60))


def test_principal_components_score_by_the_squared_error_of_the_projection():
    flat, probe = IMAGES.reshape(12, -1), STRANGE.reshape(3, -1)
    pca = PCA(4, svd_solver="full").fit(flat)
    expected = (probe - pca.inverse_transform(pca.transform(probe))) ** 2
    findings = fit_principal_components(in_batches(IMAGES), 0, components=4)(STRANGE)
    np.testing.assert_allclose(findings.maps, expected.reshape(3, 5, 4, 3).mean(axis=-1), atol=1e-4)
    np.testing.assert_allclose(findings.scores, expected.mean(axis=1), rtol=1e-3)


def test_principal_components_never_reproduce_every_training_image():
    assert fit_principal_components(in_batches(IMAGES), 0, components=128)(STRANGE).scores.min() > 1e-3


def test_nearest_neighbours_give_a_training_image_no_distance_and_no_map():
    detector = fit_nearest_neighbour(in_batches(IMAGES), 0)
    assert detector(IMAGES).scores == pytest.approx(np.zeros(12), abs=1e-3)
    assert detector(STRANGE).scores.min() > 0.1
    assert detector(STRANGE).maps is None
