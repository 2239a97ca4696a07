"""PCA equals scikit-learn's, in whole and in portions."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from trainer.data.dataset import ImageSet
from trainer.families import principal_components
from trainer.families.principal_components import fit_pca

PIXELS = (load_digits().images[:500, ..., np.newaxis] / 16.0).astype(np.float32)
FLAT = PIXELS.reshape(len(PIXELS), -1)


def digits(count=500):
    """Normalised as (pixels - 0.5) / 0.25."""
    return ImageSet(count, (8, 8, 1), (PIXELS[:count] - 0.5) / 0.25)


def to_pixels(normalised):
    return 0.25 * normalised + 0.5


def reconstruction(pca, flat):
    return (flat - pca.mean) @ pca.axes.T @ pca.axes + pca.mean


def test_components_are_those_of_scikit_learn_on_pixels():
    expected = PCA(9, svd_solver="full").fit(FLAT)
    pca = fit_pca(digits(), 9, to_pixels)
    theirs = expected.inverse_transform(expected.transform(FLAT))
    assert reconstruction(pca, FLAT) == pytest.approx(theirs, abs=1e-4)
    assert pca.deviations == pytest.approx(np.sqrt(expected.explained_variance_), rel=1e-4)


@pytest.mark.parametrize("count", [90, 50], ids=["more images than values", "more values than images"])
def test_images_that_are_read_in_portions_have_the_same_components(monkeypatch, count):
    expected = PCA(5, svd_solver="full").fit(FLAT[:count])
    monkeypatch.setattr(principal_components, "_PORTION_BYTES", 15 * 64 * 8)
    reads = []

    class Recorded(ImageSet):
        def rows(self, rows):
            reads.append(rows.stop - rows.start)
            return super().rows(rows)

    pca = fit_pca(Recorded(count, (8, 8, 1), digits().images), 5, to_pixels)
    assert max(reads) == 15
    assert pca.mean == pytest.approx(FLAT[:count].mean(axis=0), abs=1e-5)
    assert pca.axes @ pca.axes.T == pytest.approx(np.eye(5), abs=1e-5)
    theirs = expected.inverse_transform(expected.transform(FLAT))
    assert reconstruction(pca, FLAT) == pytest.approx(theirs, abs=1e-4)
    assert pca.deviations == pytest.approx(np.sqrt(expected.explained_variance_), rel=1e-4)


@pytest.mark.parametrize(("components", "count"), [(9, 90), (30, 300)])
def test_at_least_ten_images_for_each_component_are_used_however_large_they_are(monkeypatch, components, count):
    monkeypatch.setattr(principal_components, "_BUDGET_BYTES", 1)
    assert fit_pca(digits(), components, to_pixels).mean == pytest.approx(FLAT[:count].mean(axis=0), abs=1e-5)


@pytest.mark.parametrize("count", [3, 100])
def test_images_that_are_all_alike_have_orthonormal_axes_without_deviation(count):
    alike = ImageSet(count, (8, 8, 1), np.full((count, 8, 8, 1), 0.3, np.float32))
    pca = fit_pca(alike, 9, to_pixels)
    assert pca.axes @ pca.axes.T == pytest.approx(np.eye(min(count, 9)), abs=1e-5)
    assert pca.deviations == pytest.approx(0.0, abs=1e-5)


def test_there_are_no_more_components_than_images():
    assert fit_pca(digits(5), 9, to_pixels).axes.shape == (5, 64)
