"""The closed-form fit equals scikit-learn's PCA and ridge regression, also for the images left out of it."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from trainer.families import feature_fit
from trainer.families.feature_fit import (
    errors_by_surroundings,
    fit_linear,
    groups_of_similar,
    surroundings,
    two_kinds,
)

HEIGHT, WIDTH, CHANNELS = 8, 9, 6


@pytest.fixture(scope="module")
def maps():
    random = np.random.default_rng(3)
    mixing = random.standard_normal((8, HEIGHT * WIDTH * CHANNELS))
    flat = random.standard_normal((40, 8)) @ mixing + random.standard_normal((40, HEIGHT * WIDTH * CHANNELS))
    return flat.reshape(40, HEIGHT, WIDTH, CHANNELS).astype(np.float32)


@pytest.fixture(scope="module")
def changed(maps):
    return maps + 0.1 * np.random.default_rng(4).standard_normal(maps.shape).astype(np.float32)


def of_whole_maps(train, test, components):
    pca = PCA(components).fit(train.reshape(len(train), -1))
    flat = test.reshape(len(test), -1)
    return np.square(flat - pca.inverse_transform(pca.transform(flat))).reshape(test.shape).mean(axis=-1)


def common_axes(train, components):
    """Without a mean: the maps are standardised before they are fitted."""
    values, vectors = np.linalg.eigh(np.einsum("nhwc,nhwd->cd", train, train))
    return vectors[:, np.argsort(values)[::-1][:components]]


def around(maps, axes):
    """Components of the 16 positions around each, the opposite or farthest one where the map ends."""

    def place(start, step, size):
        if 0 <= start + step < size:
            return start + step
        if 0 <= start - step < size:
            return start - step
        return size - 1 if start < size / 2 else 0

    rows = []
    for one in maps @ axes:
        for y in range(HEIGHT):
            for x in range(WIDTH):
                steps = [(d * a, d * b) for d in (3, 6) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
                rows.append(np.concatenate([one[place(y, a, HEIGHT), place(x, b, WIDTH)] for a, b in steps]))
    return np.array(rows)


def of_surroundings(train, test, axes):
    inputs = around(train, axes)
    ridge = Ridge(alpha=0.1 * len(inputs), fit_intercept=False).fit(inputs, train.reshape(-1, CHANNELS))
    return np.square(test - ridge.predict(around(test, axes)).reshape(test.shape)).mean(axis=-1)


def usual_of(errors, images):
    """Mean and spread as if 100 more images had errors that are the same everywhere on the map."""
    mean, deviation = errors.mean(axis=0), errors.std(axis=0)
    everywhere = errors.reshape(-1, 2)
    spread = images * (deviation + deviation.mean(axis=(0, 1))) + 100 * everywhere.std(axis=0)
    usual = (images * mean + 100 * everywhere.mean(axis=0)) / (images + 100)
    return usual, spread / (images + 100) + 0.01 * everywhere.mean(axis=0)


def test_whole_maps_are_reconstructed_as_by_pca(maps):
    fitted = fit_linear(maps, np.arange(40), latent_dim=4, components=2)
    centred = maps.reshape(40, -1) - fitted.whole_mean
    found = np.square(centred - centred @ fitted.whole_axes @ fitted.whole_axes.T).reshape(maps.shape).mean(axis=-1)
    assert found == pytest.approx(of_whole_maps(maps, maps, 4), rel=1e-3, abs=1e-4)
    assert fitted.latents == pytest.approx(centred @ fitted.whole_axes / fitted.deviations, abs=1e-3)
    assert fitted.latents.std(axis=0, ddof=1) == pytest.approx(np.ones(4), rel=1e-3)


def test_positions_are_reconstructed_from_their_surroundings_as_by_ridge_regression(maps):
    fitted = fit_linear(maps, np.arange(40), latent_dim=4, components=2)
    expected = of_surroundings(maps, maps, common_axes(maps, 2))
    assert errors_by_surroundings(maps, fitted.axes, fitted.kernel) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_no_position_takes_part_in_its_own_reconstruction():
    for height, width in ((28, 28), (8, 9), (4, 6), (2, 3)):
        assert not (surroundings(height, width) == np.arange(height * width)[:, None]).any()


def test_unseen_deviations_come_from_fits_without_any_map_of_the_image(maps, changed):
    """Each image has two maps, the second one changed. Both show what is usual; only the first is an unseen one."""
    fitted = fit_linear(np.concatenate([maps, changed]), np.tile(np.arange(40), 2), latent_dim=4, components=2)
    folds, views = np.arange(40) % 5, groups_of_similar(maps.reshape(40, -1) @ maps.reshape(40, -1).T)
    axes = common_axes(np.concatenate([maps, changed]), 2)
    unseen, expected = np.empty((40, HEIGHT, WIDTH, 2)), np.empty((2, 40, HEIGHT, WIDTH, 2))
    for fold in range(5):
        train = np.concatenate([maps[folds != fold], changed[folds != fold]])
        unseen[folds == fold, ..., 1] = of_whole_maps(train, maps[folds == fold], 4)
        for number, measured in enumerate((maps, changed)):
            expected[number, folds == fold, ..., 0] = of_surroundings(train, measured[folds == fold], axes)
    for view in np.unique(views):
        train = np.concatenate([maps[views != view], changed[views != view]])
        for number, measured in enumerate((maps, changed)):
            expected[number, views == view, ..., 1] = of_whole_maps(train, measured[views == view], 4)
    unseen[..., 0] = expected[0, ..., 0]
    for fold in range(5):
        others = expected[:, folds != fold].reshape(-1, HEIGHT, WIDTH, 2)
        usual, spread = usual_of(others, images=32)
        larger = ((unseen[folds == fold] - usual) / spread).max(axis=-1)
        assert fitted.unseen[folds == fold] == pytest.approx(larger, rel=1e-2, abs=1e-2)
    usual, spread = usual_of(expected.reshape(-1, HEIGHT, WIDTH, 2), images=40)
    assert fitted.usual == pytest.approx(usual, rel=2e-3)
    assert fitted.spread == pytest.approx(spread, rel=5e-3)


def test_new_views_are_not_strange_although_whole_maps_know_theirs_by_heart():
    """Eight views with a dozen near-copies each: twenty new views are compared with left-out copies of known ones."""
    random = np.random.default_rng(5)
    every_view = random.standard_normal((28, 4, 4, 6))
    copies = np.repeat(every_view[:8], 12, axis=0)
    copies = (copies + 0.1 * random.standard_normal(copies.shape)).astype(np.float32)
    fitted = fit_linear(copies, np.arange(96), latent_dim=16, components=3)
    flat = every_view[8:].reshape(20, -1) - fitted.whole_mean
    of_new = np.square(flat - flat @ fitted.whole_axes @ fitted.whole_axes.T).reshape(20, 4, 4, 6).mean(axis=-1)
    flat = copies.reshape(96, -1) - fitted.whole_mean
    of_known = np.square(flat - flat @ fitted.whole_axes @ fitted.whole_axes.T).mean()
    assert of_new.mean() > 10 * of_known
    assert ((of_new - fitted.usual[..., 1]) / fitted.spread[..., 1]).mean() < 0.5


def test_every_fold_contributes_to_the_reconstruction_from_surroundings(maps, monkeypatch):
    """However few maps it is learned from: otherwise there is nothing left to solve when one fold is left out."""
    monkeypatch.setattr(feature_fit, "_MOST_POSITIONS", 5 * HEIGHT * WIDTH)
    fitted = fit_linear(np.concatenate([maps] * 5), np.tile(np.arange(40), 5), latent_dim=4, components=2)
    assert np.isfinite(fitted.unseen).all()
    assert fitted.usual[..., 0].mean() < 1.5 * np.square(maps).mean()


def test_groups_of_similar_maps():
    random = np.random.default_rng(6)
    truth = np.repeat(np.arange(5), 10)
    flat = random.standard_normal((5, 200))[truth] * 5 + random.standard_normal((50, 200))
    groups = groups_of_similar(flat @ flat.T)
    assert len({(one, other) for one, other in zip(truth, groups, strict=True)}) == 5


def test_two_kinds_of_images_are_counted_if_they_are_clear():
    random = np.random.default_rng(8)
    one = random.standard_normal((80, 16)) * np.linspace(3, 0.5, 16)
    other = one[:20] + 24 * np.eye(16)[3]
    assert two_kinds(np.concatenate([one, other])) == (80, 20)
    assert two_kinds(one) is None
    assert two_kinds(np.concatenate([one, other[:8]])) is None, "a few may be defects"
    assert two_kinds(np.concatenate([one[:10], other[:8]])) is None, "too few to tell"
    assert two_kinds(np.concatenate([one, one[:40] + 4 * np.eye(16)[3]])) is None, "a product in two places"
    assert two_kinds(np.zeros((30, 4))) is None


def test_two_images_are_enough(maps):
    fitted = fit_linear(maps[:2], np.arange(2), latent_dim=8, components=2)
    assert np.isfinite(fitted.unseen).all()
    assert fitted.deviations.shape == (1,)
