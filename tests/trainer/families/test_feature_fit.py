"""The closed-form fit equals scikit-learn's PCA, also for the images left out of it."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from trainer.families.feature_fit import fit_linear, groups_of_similar, position_errors


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


def of_positions(train, test, components):
    """Without a mean: the maps are standardised before they are fitted."""
    values, vectors = np.linalg.eigh(np.einsum("nhwc,nhwd->cd", train, train))
    axes = vectors[:, np.argsort(values)[::-1][:components]]
    return np.square(test - test @ axes @ axes.T).mean(axis=-1)


def test_whole_maps_are_reconstructed_as_by_pca(maps):
    fitted = fit_linear(maps, np.arange(40), latent_dim=4, components=2)
    centred = maps.reshape(40, -1) - fitted.whole_mean
    found = np.square(centred - centred @ fitted.whole_axes @ fitted.whole_axes.T).reshape(maps.shape).mean(axis=-1)
    assert found == pytest.approx(of_whole_maps(maps, maps, 4), rel=1e-3, abs=1e-4)
    assert fitted.latents == pytest.approx(centred @ fitted.whole_axes / fitted.deviations, abs=1e-3)
    assert fitted.latents.std(axis=0, ddof=1) == pytest.approx(np.ones(4), rel=1e-3)


def test_positions_are_reconstructed_from_their_common_components(maps):
    fitted = fit_linear(maps, np.arange(40), latent_dim=4, components=2)
    assert position_errors(maps, fitted.position_axes) == pytest.approx(of_positions(maps, maps, 2), rel=1e-3, abs=1e-4)


def test_unseen_errors_come_from_fits_without_any_map_of_the_image(maps):
    """Each image has two maps, the second one changed; only the first is measured."""
    changed = maps + 0.1 * np.random.default_rng(4).standard_normal(maps.shape).astype(np.float32)
    images = np.tile(np.arange(40), 2)
    fitted = fit_linear(np.concatenate([maps, changed]), images, latent_dim=4, components=2)
    for fold in range(5):
        kept = np.concatenate([maps[np.arange(40) % 5 != fold], changed[np.arange(40) % 5 != fold]])
        own = maps[np.arange(40) % 5 == fold]
        found = fitted.unseen[np.arange(40) % 5 == fold]
        assert found[..., 0] == pytest.approx(of_positions(kept, own, 2), rel=2e-3, abs=1e-4)
        assert found[..., 1] == pytest.approx(of_whole_maps(kept, own, 4), rel=2e-3, abs=1e-4)


def test_views_that_are_learned_by_heart_have_larger_errors_when_the_whole_group_is_left_out():
    """Eight views with a dozen near-copies each, against as many images that all differ."""
    random = np.random.default_rng(5)
    views = np.repeat(random.standard_normal((8, 4, 4, 6)), 12, axis=0)
    near_copies = (views + 0.1 * random.standard_normal(views.shape)).astype(np.float32)
    all_differ = random.standard_normal(views.shape).astype(np.float32)
    rises = []
    for maps in (near_copies, all_differ):
        fitted = fit_linear(maps, np.arange(96), latent_dim=16, components=3)
        rises.append(fitted.unseen_views[..., 1].mean() / fitted.unseen[..., 1].mean())
    assert rises[0] > 5.0
    assert rises[1] < 1.2


def test_groups_of_similar_maps():
    random = np.random.default_rng(6)
    truth = np.repeat(np.arange(5), 10)
    flat = random.standard_normal((5, 200))[truth] * 5 + random.standard_normal((50, 200))
    groups = groups_of_similar(flat @ flat.T)
    assert len({(one, other) for one, other in zip(truth, groups, strict=True)}) == 5


def test_two_images_are_enough(maps):
    fitted = fit_linear(maps[:2], np.arange(2), latent_dim=8, components=2)
    assert np.isfinite(fitted.unseen).all()
    assert fitted.deviations.shape == (1,)
