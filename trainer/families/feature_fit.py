"""Fits the linear autoencoders of the family `features` in closed form, and measures them on images left out.

Two autoencoders reconstruct the same maps: one the whole map of an image from a single latent, the other each position
from its own components, which are the same everywhere. Both are principal components: Baldi & Hornik 1989,
doi:10.1016/0893-6080(89)90014-2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg  # type: ignore[import-untyped]
from sklearn.cluster import KMeans

Array = npt.NDArray[Any]
_COLUMNS = 8192
"""Values of each map that are processed at once."""
_SMALLEST = 1e-6
_FOLDS = 5
_CLUSTERED_BY = 16
"""Principal components of the maps by which similar images are grouped."""


@dataclass(frozen=True)
class LinearFit:
    """`position_axes` [c, k] and `whole_axes` [h w c, Z], orthonormal; `whole_mean` [h w c]; `deviations` [Z].

    `latents` [n, Z] of the images, scaled to unit variance. `unseen` and `unseen_views` [n, h, w, 2]: the mean squared
    error of each position, by position and as a whole, of images that the autoencoder in question was not fitted to;
    for `unseen_views` not to similar images either.
    """

    position_axes: Array
    whole_mean: Array
    whole_axes: Array
    deviations: Array
    latents: Array
    unseen: Array
    unseen_views: Array


def fit_linear(
    maps: Array, images: Array, *, latent_dim: int, components: int, sources: Array | None = None
) -> LinearFit:
    """Fit to standardised maps [N, h, w, c] in any precision, of which several may show the same image.

    `images` [N] is each map's image, 0 to n - 1, n >= 2; the first map of an image is the unchanged one. An image's
    unseen errors come from fits without any of its maps. If images are tiles, `sources` [n] is what each is cut from;
    the fits for `unseen` are also without the other tiles of the same source.
    """
    flat, channels = maps.reshape(len(maps), -1), maps.shape[-1]
    gram, originals = _gram(flat), np.unique(images, return_index=True)[1]
    whole = _WholeMaps(gram, np.arange(len(maps)), latent_dim)
    mean, axes = np.empty(flat.shape[1], np.float32), np.empty((flat.shape[1], whole.components), np.float32)
    for start, end in _portions(flat.shape[1], channels):
        part = flat[:, start:end].astype(np.float32)
        mean[start:end] = part.mean(axis=0)
        axes[start:end] = (part - mean[start:end]).T @ whole.into_axes
    of_sources = np.zeros(0) if sources is None else np.unique(sources, return_inverse=True)[1]
    left_out_together = of_sources if of_sources.any() else np.arange(len(originals))
    folds = left_out_together % min(_FOLDS, int(left_out_together.max()) + 1)
    unseen, unseen_views = (
        _unseen_errors(maps, images, gram, of_images, latent_dim=latent_dim, components=components)
        for of_images in (folds, groups_of_similar(gram[np.ix_(originals, originals)]))
    )
    return LinearFit(
        position_axes=_leading(_scatter(maps), components),
        whole_mean=mean,
        whole_axes=axes,
        deviations=whole.deviations,
        latents=whole.latents[originals],
        unseen=unseen,
        unseen_views=unseen_views,
    )


def groups_of_similar(gram: Array) -> Array:
    """A group, 0 to 4 or less, for each of n maps with these inner products [n, n]: k-means on their components."""
    components = _WholeMaps(gram, np.arange(len(gram)), _CLUSTERED_BY)
    groups = min(_FOLDS, max(2, len(gram) // 4))
    points = components.latents * components.deviations
    found: Array = KMeans(groups, n_init=5, random_state=0).fit(points.astype(np.float64)).labels_
    return found if len(np.unique(found)) > 1 else np.arange(len(gram)) % groups


def position_errors(maps: Array, axes: Array) -> Array:
    """Mean squared error of each position, reconstructed from its projections on `axes` [c, k]: [n, h, w]."""
    errors: Array = np.square(maps).mean(axis=-1) - np.square(maps @ axes).sum(axis=-1) / maps.shape[-1]
    return np.maximum(errors, 0.0)


def _unseen_errors(maps: Array, images: Array, gram: Array, folds: Array, *, latent_dim: int, components: int) -> Array:
    """Errors [n, h, w, 2], by position and as a whole, from fits without the images of the same fold; `folds` [n]."""
    flat, (height, width, channels) = maps.reshape(len(maps), -1), maps.shape[1:]
    originals = np.unique(images, return_index=True)[1]
    scatters = {fold: _scatter(maps[folds[images] == fold]) for fold in np.unique(folds)}
    errors = np.empty((len(originals), height * width, 2), np.float32)
    for fold, scatter in scatters.items():
        own, kept = np.flatnonzero(folds == fold), np.flatnonzero(folds[images] != fold)
        axes = _leading(sum(scatters.values()) - scatter, components)
        weights = _WholeMaps(gram, kept, latent_dim).weights(originals[own])
        for start, end in _portions(flat.shape[1], channels):
            part = flat[originals[own], start:end].astype(np.float32)
            positions = slice(start // channels, end // channels)
            errors[own, positions, 0] = position_errors(part.reshape(len(part), -1, channels), axes)
            residual = part - weights @ flat[kept, start:end].astype(np.float32)
            errors[own, positions, 1] = np.square(residual).reshape(len(part), -1, channels).mean(axis=2)
    return errors.reshape(len(originals), height, width, 2)


class _WholeMaps:
    """Principal components of maps in terms of these maps.

    With fewer maps than values in a map, their inner products have all that is needed (Turk & Pentland 1991,
    doi:10.1162/jocn.1991.3.1.71).
    """

    def __init__(self, gram: Array, rows: Array, components: int) -> None:
        """`gram` [N, N]: inner products of all maps; `rows`: the indices of the maps to decompose."""
        own = gram[np.ix_(rows, rows)]
        self._gram, self._rows, self._means, self._mean = gram, rows, own.mean(axis=0), own.mean()
        centred = own - self._means - self._means[:, np.newaxis] + self._mean
        last = len(rows) - 1
        self.components = max(1, min(components, last))
        values, vectors = scipy.linalg.eigh(centred, subset_by_index=(last + 1 - self.components, last))
        values, vectors = np.maximum(values[::-1], _SMALLEST), vectors[:, ::-1]
        self.into_axes: Array = (vectors / np.sqrt(values)).astype(np.float32)
        """[rows, Z]: the centred maps times this are the axes."""
        self.deviations: Array = np.sqrt(values / max(last, 1)).astype(np.float32)
        self.latents: Array = (vectors * np.sqrt(max(last, 1))).astype(np.float32)

    def weights(self, others: Array) -> Array:
        """[others, rows]: the maps of `rows` times these weights reconstruct the maps of `others`."""
        crossed = self._gram[np.ix_(others, self._rows)]
        centred = crossed - crossed.mean(axis=1, keepdims=True) - self._means + self._mean
        weights: Array = centred.astype(np.float32) @ self.into_axes @ self.into_axes.T
        return weights + (1.0 - weights.sum(axis=1, keepdims=True)) / len(self._rows)


def _leading(scatter: Array, components: int) -> Array:
    """The eigenvectors [c, k] with the largest eigenvalues."""
    channels = len(scatter)
    vectors = scipy.linalg.eigh(scatter, subset_by_index=(channels - min(components, channels), channels - 1))[1]
    leading: Array = vectors[:, ::-1].astype(np.float32)
    return leading


def _gram(flat: Array) -> Array:
    """Inner products of all maps [N, N], in double precision."""
    gram = np.zeros((len(flat), len(flat)))
    for start in range(0, flat.shape[1], _COLUMNS):
        part = flat[:, start : start + _COLUMNS].astype(np.float32)
        gram += part @ part.T
    return gram


def _scatter(maps: Array) -> Array:
    """Sum of the outer products of all positions' features: [c, c]."""
    scatter = np.zeros((maps.shape[-1],) * 2)
    for one in maps:
        features = one.reshape(-1, maps.shape[-1]).astype(np.float32)
        scatter += features.T @ features
    return scatter


def _portions(values: int, channels: int) -> Iterator[tuple[int, int]]:
    """(start, end) of consecutive values of a map that belong to whole positions."""
    step = max(1, _COLUMNS // channels) * channels
    return ((start, min(start + step, values)) for start in range(0, values, step))
