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


def test_images_beyond_the_memory_budget_are_fitted_in_portions_with_nearly_the_same_error(monkeypatch):
    """At least ten images for each component count, however small the budget: here 90 of 500, in portions of 15."""
    expected = PCA(9, svd_solver="full").fit(FLAT[:90])
    monkeypatch.setattr(principal_components, "_BUDGET_BYTES", 15 * 64 * 4)
    reads = []

    class Recorded(ImageSet):
        def rows(self, rows):
            reads.append((rows.start, rows.stop))
            return super().rows(rows)

    pca = fit_pca(Recorded(500, (8, 8, 1), digits().images), 9, to_pixels)
    assert reads == [(start, start + 15) for start in range(0, 90, 15)]
    assert pca.mean == pytest.approx(FLAT[:90].mean(axis=0), abs=1e-5)
    assert pca.axes @ pca.axes.T == pytest.approx(np.eye(9), abs=1e-4)
    best = ((expected.inverse_transform(expected.transform(FLAT[:90])) - FLAT[:90]) ** 2).mean()
    assert best < ((reconstruction(pca, FLAT[:90]) - FLAT[:90]) ** 2).mean() < 1.1 * best


def test_the_last_portion_takes_the_rest(monkeypatch):
    monkeypatch.setattr(principal_components, "_BUDGET_BYTES", 20 * 64 * 4)
    pca = fit_pca(digits(70), 7, to_pixels)  # 20, 20 and 30 images
    assert pca.mean == pytest.approx(FLAT[:70].mean(axis=0), abs=1e-5)


def test_there_are_no_more_components_than_images():
    assert fit_pca(digits(5), 9, to_pixels).axes.shape == (5, 64)
