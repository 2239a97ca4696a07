"""Fits the linear models of the family `features` in closed form, and measures them on images left out.

Two models reconstruct the same maps. One reconstructs the whole map of an image from a single latent, by principal
components (Baldi & Hornik 1989, doi:10.1016/0893-6080(89)90014-2); the other each position from its surroundings, in
the same way everywhere, by ridge regression.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg  # type: ignore[import-untyped]
from sklearn.cluster import KMeans

Array = npt.NDArray[Any]
DISTANCES = (3, 6)
"""Positions from one to those that it is reconstructed from; at 3, their averages over 3x3 do not overlap its own."""
_COLUMNS = 8192
"""Values of each map that are processed at once."""
_SMALLEST = 1e-6
_FOLDS = 5
_CLUSTERED_BY = 16
"""Principal components of the maps by which similar images are grouped."""
_RIDGE = 0.1
"""Added to the variances of the surroundings' components, in units of a feature's variance, which is 1."""
_MOST_POSITIONS = 320_000
"""Positions from which the reconstruction by surroundings is learned."""
_COMMON_IMAGES = 100
"""Images whose weight errors anywhere on a map have among those at one position."""
_LEAST_SPREAD = 0.01
"""Of errors, in units of their mean."""
_LEAST_TO_COMPARE, _LEAST_SHARE, _CLEAR = 20, 0.1, 0.4
"""Images, the smaller kind's share of them, and the explained share of variance for two kinds among them."""


@dataclass(frozen=True)
class LinearFit:
    """`axes` [c, k] and `whole_axes` [h w c, Z], orthonormal; `kernel` [s k, c]; `whole_mean` [h w c].

    A position is reconstructed as the product of its surroundings' components, their features times `axes`, and
    `kernel`. `deviations` [Z] and `latents` [n, Z] of the images, scaled to unit variance. `usual` and `spread`
    [h, w, 2]: what errors to expect at each position, by surroundings and as a whole. `unseen` [n, h, w]: the larger
    deviation from that, in units of the spread, for images that nothing but `axes` was fitted to.
    """

    axes: Array
    kernel: Array
    whole_mean: Array
    whole_axes: Array
    deviations: Array
    latents: Array
    usual: Array
    spread: Array
    unseen: Array


def fit_linear(
    maps: Array, images: Array, *, latent_dim: int, components: int, sources: Array | None = None
) -> LinearFit:
    """Fit to standardised maps [N, h, w, c] in any precision, of which several may show the same image.

    `images` [N] is each map's image, 0 to n - 1, n >= 2; the first map of an image is the unchanged one. An image's
    unseen errors come from fits without any of its maps; only `axes` are those of all maps. If images are tiles,
    `sources` [n] is what each is cut from; these fits are also without the other tiles of the same source.

    Whole maps may know their images by heart, and then every new view looks strange. So the errors to expect of them
    are those of images that differ from all others: each group of similar images is reconstructed by a fit without it.
    Errors of each image's second map, with harmless changes, are expected likewise.
    """
    flat, channels = maps.reshape(len(maps), -1), maps.shape[-1]
    gram, originals = _gram(flat), np.unique(images, return_index=True)[1]
    whole = _WholeMaps(gram, np.arange(len(maps)), latent_dim)
    mean, whole_axes = np.empty(flat.shape[1], np.float32), np.empty((flat.shape[1], whole.components), np.float32)
    for start, end in _portions(flat.shape[1], channels):
        part = flat[:, start:end].astype(np.float32)
        mean[start:end] = part.mean(axis=0)
        whole_axes[start:end] = (part - mean[start:end]).T @ whole.into_axes
    of_sources = np.zeros(0) if sources is None else np.unique(sources, return_inverse=True)[1]
    left_out_together = of_sources if of_sources.any() else np.arange(len(originals))
    folds = left_out_together % min(_FOLDS, int(left_out_together.max()) + 1)
    views = groups_of_similar(gram[np.ix_(originals, originals)])
    axes = _leading(_scatter(maps), components)
    others = np.setdiff1d(np.arange(len(maps)), originals)
    measured = np.concatenate([originals, others[np.unique(images[others], return_index=True)[1]]])
    kernel, by_surroundings = _by_surroundings(maps, images, measured, axes, folds)
    unfamiliar = _whole_errors(maps, images, gram, measured, views, latent_dim)
    familiar = _whole_errors(maps, images, gram, originals, folds, latent_dim)
    expected = np.stack([by_surroundings, unfamiliar], axis=-1)
    unseen = np.stack([by_surroundings[: len(originals)], familiar], axis=-1)
    usual, spread = usual_errors(expected, len(originals))
    return LinearFit(
        axes=axes,
        kernel=kernel,
        whole_mean=mean,
        whole_axes=whole_axes,
        deviations=whole.deviations,
        latents=whole.latents[originals],
        usual=usual,
        spread=spread,
        unseen=_unseen_deviations(unseen, expected, folds, folds[images[measured]]),
    )


def groups_of_similar(gram: Array) -> Array:
    """A group, 0 to 4 or less, for each of n maps with these inner products [n, n]: k-means on their components."""
    components = _WholeMaps(gram, np.arange(len(gram)), _CLUSTERED_BY)
    groups = min(_FOLDS, max(2, len(gram) // 4))
    points = components.latents * components.deviations
    found: Array = KMeans(groups, n_init=5, random_state=0).fit(points.astype(np.float64)).labels_
    return found if len(np.unique(found)) > 1 else np.arange(len(gram)) % groups


def two_kinds(points: Array) -> tuple[int, int] | None:
    """The sizes of two clearly different kinds among images at points [n, Z], the larger first; None if of one kind.

    They are clear if knowing an image's kind explains 0.4 of the variance: docs/scores.md has figures.
    """
    points = np.asarray(points, np.float64)
    variance = np.square(points - points.mean(axis=0)).sum()
    if len(points) < _LEAST_TO_COMPARE or variance < _SMALLEST:
        return None
    fitted = KMeans(2, n_init=5, random_state=0).fit(points)
    smaller, larger = sorted(np.bincount(fitted.labels_, minlength=2).tolist())
    explained = 1.0 - fitted.inertia_ / variance
    return (larger, smaller) if explained >= _CLEAR and smaller >= _LEAST_SHARE * len(points) else None


def surroundings(height: int, width: int) -> npt.NDArray[np.int64]:
    """The positions that surround each of a map's, numbered row by row: [height width, 8 for each of DISTANCES].

    They lie above, below, beside and diagonally. Those beyond the edge are replaced by those on the opposite side of
    the position, or by the farthest ones: never by the position itself, if there are two rows and columns.
    """
    around = []
    for distance, down, across in itertools.product(DISTANCES, (-1, 0, 1), (-1, 0, 1)):
        if down or across:
            rows, columns = _away(height, down * distance), _away(width, across * distance)
            around.append((rows[:, np.newaxis] * width + columns).reshape(-1))
    return np.stack(around, axis=1)


def errors_by_surroundings(maps: Array, axes: Array, kernel: Array) -> Array:
    """Mean squared error of each position, reconstructed from its surroundings: [n, h, w]."""
    residual = maps - (_components_around(maps, axes) @ kernel).reshape(maps.shape)
    errors: Array = np.square(residual).mean(axis=-1)
    return errors


def usual_errors(errors: Array, images: int) -> tuple[Array, Array]:
    """(mean, spread) of each position [h, w, 2] over errors of maps [m, h, w, 2] of so many images by two models.

    The spread is the standard deviation plus the mean of all standard deviations: the sum bounds the weight of
    positions whose error hardly varies, such as an empty background. Few images do not tell what is usual at a
    position, and a single odd one would decide it. So both are shrunk towards what is usual anywhere on the map.
    """
    own = images / (images + _COMMON_IMAGES)
    usual, deviation = errors.mean(axis=0), errors.std(axis=0)
    anywhere, spread_anywhere = usual.mean(axis=(0, 1)), errors.std(axis=(0, 1, 2))
    spread = own * (deviation + deviation.mean(axis=(0, 1))) + (1 - own) * spread_anywhere
    return own * usual + (1 - own) * anywhere, spread + _LEAST_SPREAD * anywhere + _SMALLEST


def _unseen_deviations(unseen: Array, expected: Array, folds: Array, folds_of_expected: Array) -> Array:
    """The larger deviation [n, h, w] of errors [n, h, w, 2] from the `expected` ones [m, h, w, 2] of other folds."""
    deviations = np.empty(unseen.shape[:-1], np.float32)
    for fold in np.unique(folds):
        usual, spread = usual_errors(expected[folds_of_expected != fold], int(np.count_nonzero(folds != fold)))
        deviations[folds == fold] = ((unseen[folds == fold] - usual) / spread).max(axis=-1)
    return deviations


def _away(size: int, steps: int) -> npt.NDArray[np.int64]:
    """For each place 0 to size - 1 the one that is so many steps away."""
    places = np.arange(size)
    ahead, back = places + steps, places - steps
    farthest = np.where(places < size / 2, size - 1, 0)
    inside, opposite = ((one >= 0) & (one < size) for one in (ahead, back))
    return np.where(inside, ahead, np.where(opposite, back, farthest))


def _components_around(maps: Array, axes: Array) -> Array:
    """Components of the surroundings of every position: [n, h w, s k]."""
    count, height, width, _ = maps.shape
    components = (maps @ axes).reshape(count, height * width, -1)
    return components[:, surroundings(height, width)].reshape(count, height * width, -1)


def _by_surroundings(maps: Array, images: Array, measured: Array, axes: Array, folds: Array) -> tuple[Array, Array]:
    """(kernel, errors [m, h, w] of the `measured` maps by kernels without the images of the same fold [n])."""
    size, channels, positions = axes.shape[1] * len(DISTANCES) * 8, maps.shape[-1], math.prod(maps.shape[1:3])
    numbers = np.unique(folds)
    most, moments = max(1, _MOST_POSITIONS // positions // len(numbers)), []
    random = np.random.default_rng(0)
    for fold in numbers:
        of_fold = np.zeros((size, size + channels))
        for row in random.permutation(np.flatnonzero(folds[images] == fold))[:most]:
            one = maps[row : row + 1].astype(np.float32)
            around = _components_around(one, axes)[0]
            of_fold += around.T @ np.concatenate([around, one.reshape(-1, channels)], axis=1)
            of_fold[:, :size] += _RIDGE * positions * np.eye(size)
        moments.append(of_fold)
    total, errors = sum(moments), np.empty((len(measured), *maps.shape[1:3]), np.float32)
    for fold, of_fold in zip(numbers, moments, strict=True):
        kernel = _regression(total - of_fold)
        for place in np.flatnonzero(folds[images[measured]] == fold):
            one = maps[measured[place]][np.newaxis].astype(np.float32)
            errors[place] = errors_by_surroundings(one, axes, kernel)[0]
    return _regression(total), errors


def _regression(moments: Any) -> Array:
    """The kernel [s, c] for sums of products [s, s + c] of inputs with inputs, penalised, and with targets."""
    size = len(moments)
    kernel: Array = scipy.linalg.solve(moments[:, :size], moments[:, size:], assume_a="pos").astype(np.float32)
    return kernel


def _whole_errors(maps: Array, images: Array, gram: Array, measured: Array, groups: Array, latent_dim: int) -> Array:
    """Mean squared errors [m, h, w] of `measured` whole maps, from fits without the images of the same group [n]."""
    flat, (height, width, channels) = maps.reshape(len(maps), -1), maps.shape[1:]
    errors = np.empty((len(measured), height * width), np.float32)
    for group in np.unique(groups):
        own, kept = np.flatnonzero(groups[images[measured]] == group), np.flatnonzero(groups[images] != group)
        weights = _WholeMaps(gram, kept, latent_dim).weights(measured[own])
        for start, end in _portions(flat.shape[1], channels):
            residual: Array = flat[measured[own], start:end] - weights @ flat[kept, start:end].astype(np.float32)
            positions = slice(start // channels, end // channels)
            errors[own, positions] = np.square(residual).reshape(len(own), -1, channels).mean(axis=2)
    return errors.reshape(len(measured), height, width)


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
