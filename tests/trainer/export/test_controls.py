"""The simple models that a detector must beat, compared with scikit-learn."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from trainer.data.dataset import ImageSet, PixelConstants
from trainer.export.controls import _nearest_neighbours, _pca

RANDOM = np.random.default_rng(4)
CONSTANTS = PixelConstants(offset=np.array([0.25], np.float32), scale=np.array([0.5], np.float32))
TRAIN = RANDOM.random((60, 6, 7, 1)).astype(np.float32)
NEW = RANDOM.random((9, 6, 7, 1)).astype(np.float32)
IMAGES = ImageSet(count=60, shape=(6, 7, 1), images=(TRAIN - 0.25) / 0.5)


def test_nearest_neighbours_is_the_mean_distance_to_five_images_in_sixteen_components():
    control = _nearest_neighbours(IMAGES, CONSTANTS)
    pca = PCA(16).fit(TRAIN.reshape(60, -1))
    bank, new = (pca.transform(images.reshape(len(images), -1)) for images in (TRAIN, NEW))
    expected = NearestNeighbors(n_neighbors=5).fit(bank).kneighbors(new)[0].mean(axis=1)
    outputs = control.autoencode(tf.constant(NEW))
    found = control.verdict(tf.constant(NEW), outputs)
    assert found["score"].numpy() == pytest.approx(expected, rel=1e-3)
    assert np.isnan(found["threshold"]).all()
    assert outputs["reconstruction"].numpy().reshape(9, -1) == pytest.approx(pca.inverse_transform(new), abs=1e-4)


def test_the_score_of_pca_is_its_error():
    control = _pca(IMAGES, 3, CONSTANTS)
    pca = PCA(3).fit(TRAIN.reshape(60, -1))
    reconstruction = pca.inverse_transform(pca.transform(NEW.reshape(9, -1)))
    outputs = control.autoencode(tf.constant(NEW))
    expected = ((NEW.reshape(9, -1) - reconstruction) ** 2).mean(axis=1)
    assert control.verdict(tf.constant(NEW), outputs)["score"].numpy() == pytest.approx(expected, rel=1e-3)
