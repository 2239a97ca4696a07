"""The closed-form fit equals scikit-learn's PCA and ridge regression, also for the images left out of it."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from trainer.families.feature_fit import errors_by_surroundings, fit_linear, surroundings


@pytest.fixture(scope="module")
def maps():
    random = np.random.default_rng(3)
    mixing = random.standard_normal((8, 3 * 5 * 6))
    return (
        (random.standard_normal((40, 8)) @ mixing + random.standard_normal((40, 90)))
        .reshape(40, 3, 5, 6)
        .astype(np.float32)
    )


def of_whole_maps(train, test, components):
    pca = PCA(components).fit(train.reshape(len(train), -1))
    flat = test.reshape(len(test), -1)
    return np.square(flat - pca.inverse_transform(pca.transform(flat))).reshape(test.shape).mean(axis=-1)


def by_ridge_regression(train, test, components):
    """Errors of `test`, each position predicted from the components of those around it by scikit-learn."""
    values, vectors = np.linalg.eigh(np.einsum("nhwc,nhwd->cd", train, train))
    axes = vectors[:, np.argsort(values)[::-1][:components]]
    positions = surroundings(*train.shape[1:3])
    inputs = [
        (maps @ axes).reshape(len(maps), len(positions), -1)[:, positions].reshape(len(maps) * len(positions), -1)
        for maps in (train, test)
    ]
    targets = train.reshape(len(inputs[0]), -1)
    ridge = Ridge(alpha=0.1 * len(targets), fit_intercept=False).fit(inputs[0], targets)
    return np.sqrt(np.square(test - ridge.predict(inputs[1]).reshape(test.shape)).mean(axis=-1))


def test_whole_maps_are_reconstructed_as_by_pca(maps):
    fitted = fit_linear(maps, np.arange(40), latent_dim=4, components=2)
    centred = maps.reshape(40, -1) - fitted.whole_mean
    found = np.square(centred - centred @ fitted.whole_axes @ fitted.whole_axes.T).reshape(maps.shape).mean(axis=-1)
    assert found == pytest.approx(of_whole_maps(maps, maps, 4), rel=1e-3, abs=1e-4)
    assert fitted.latents == pytest.approx(centred @ fitted.whole_axes / fitted.deviations, abs=1e-3)
    assert fitted.latents.std(axis=0, ddof=1) == pytest.approx(np.ones(4), rel=1e-3)


def test_positions_are_reconstructed_from_their_surroundings_by_ridge_regression(maps):
    fitted = fit_linear(maps, np.arange(40), latent_dim=4, components=2)
    found = errors_by_surroundings(maps, fitted.axes, fitted.kernel)
    assert found == pytest.approx(by_ridge_regression(maps, maps, 2), rel=1e-3, abs=1e-4)


def test_unseen_errors_come_from_regressions_without_any_map_of_the_image():
    """Of features with as many components as channels, whose axes the left-out maps cannot change."""
    random = np.random.default_rng(4)
    maps = random.standard_normal((20, 4, 5, 3)).astype(np.float32)
    changed = (maps + 0.5 * random.standard_normal(maps.shape)).astype(np.float32)
    fitted = fit_linear(np.concatenate([maps, changed]), np.tile(np.arange(20), 2), latent_dim=4, components=3)
    for fold in range(5):
        of_fold = np.arange(20) % 5 == fold
        kept = np.concatenate([maps[~of_fold], changed[~of_fold]])
        assert fitted.unseen[of_fold] == pytest.approx(by_ridge_regression(kept, maps[of_fold], 3), rel=1e-3)


def test_tiles_of_an_image_are_left_out_together():
    """Pairs of equal tiles that differ from all others: only their own twin could explain them."""
    random = np.random.default_rng(5)
    maps = np.repeat(random.standard_normal((10, 4, 4, 3)), 2, axis=0).astype(np.float32)
    apart, together = (
        fit_linear(maps, np.arange(20), latent_dim=2, components=3, sources=sources).unseen.mean()
        for sources in (np.arange(20), np.repeat(np.arange(10), 2))
    )
    assert apart < 0.98 * together


def test_the_surroundings_of_a_position():
    """Above, below, beside and diagonally, 3 and 6 positions away, as (row, column) of a map of 20x30."""
    around = {divmod(int(place), 30) for place in surroundings(20, 30)[10 * 30 + 12]}
    expected = {(10 + y, 12 + x) for step in (3, 6) for y in (-step, 0, step) for x in (-step, 0, step)}
    assert around == expected - {(10, 12)}


def test_surroundings_beyond_the_edge_are_those_on_the_opposite_side():
    around = [divmod(int(place), 30) for place in surroundings(20, 30)[5 * 30 + 1]]
    assert set(around) == {(5 + y, 1 + x) for y in (-3, 0, 3) for x in (0, 3) if y or x} | {(11, x) for x in (1, 7)} | {
        (5, 7)
    }


@pytest.mark.parametrize(("height", "width"), [(2, 3), (4, 4), (7, 7), (8, 13)])
def test_no_position_surrounds_itself(height, width):
    around = surroundings(height, width)
    assert around.min() >= 0
    assert around.max() < height * width
    assert not (around == np.arange(height * width)[:, np.newaxis]).any()


def test_two_images_are_enough(maps):
    fitted = fit_linear(maps[:2], np.arange(2), latent_dim=8, components=2)
    assert np.isfinite(fitted.unseen).all()
    assert fitted.deviations.shape == (1,)
