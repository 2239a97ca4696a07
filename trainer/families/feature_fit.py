"""Fits the linear autoencoder of the family `features` in closed form, and measures it on images left out.

Every position is reconstructed from its surroundings, in the same way everywhere, by ridge regression. Whole maps give
the latent: their principal components (Baldi & Hornik 1989, doi:10.1016/0893-6080(89)90014-2).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg  # type: ignore[import-untyped]

Array = npt.NDArray[Any]
DISTANCES = (3, 6)
"""Positions from one to those that it is reconstructed from; at 3, their averages over 3x3 do not overlap its own."""
_COLUMNS = 8192
"""Values of each map that are processed at once."""
_SMALLEST = 1e-6
_FOLDS = 5
_RIDGE = 0.1
"""Added to the variances of the surroundings' components, in units of a feature's variance, which is 1."""
_MOST_MAPS = 400
"""Maps from which the reconstruction by surroundings is learned; they have hundreds of positions each."""


@dataclass(frozen=True)
class LinearFit:
    """`axes` [c, k], orthonormal; `kernel` [s k, c]; `whole_mean` [h w c]; `whole_axes` [h w c, Z], orthonormal.

    A position is reconstructed as the product of its surroundings' components, their features times `axes`, and
    `kernel`. `deviations` [Z] and `latents` [n, Z] of the images, scaled to unit variance. `unseen` [n, h, w]: the root
    mean squared error of each position of images that `kernel` was not fitted to.
    """

    axes: Array
    kernel: Array
    whole_mean: Array
    whole_axes: Array
    deviations: Array
    latents: Array
    unseen: Array


def fit_linear(
    maps: Array, images: Array, *, latent_dim: int, components: int, sources: Array | None = None
) -> LinearFit:
    """Fit to standardised maps [N, h, w, c] in any precision, of which several may show the same image.

    `images` [N] is each map's image, 0 to n - 1, n >= 2; the first map of an image is the unchanged one. An image's
    unseen errors come from fits without any of its maps. If images are tiles, `sources` [n] is what each is cut from;
    the fits are also without the other tiles of the same source.
    """
    flat, channels = maps.reshape(len(maps), -1), maps.shape[-1]
    originals = np.unique(images, return_index=True)[1]
    whole = _WholeMaps(_gram(flat), latent_dim)
    mean, whole_axes = np.empty(flat.shape[1], np.float32), np.empty((flat.shape[1], whole.components), np.float32)
    for start, end in _portions(flat.shape[1]):
        part = flat[:, start:end].astype(np.float32)
        mean[start:end] = part.mean(axis=0)
        whole_axes[start:end] = (part - mean[start:end]).T @ whole.into_axes
    of_sources = np.zeros(0) if sources is None else np.unique(sources, return_inverse=True)[1]
    left_out_together = of_sources if of_sources.any() else np.arange(len(originals))
    folds = left_out_together % min(_FOLDS, int(left_out_together.max()) + 1)
    axes = _leading(_scatter(maps), min(components, channels))
    kernel, unseen = _by_surroundings(maps, axes, folds[images], originals)
    return LinearFit(
        axes=axes,
        kernel=kernel,
        whole_mean=mean,
        whole_axes=whole_axes,
        deviations=whole.deviations,
        latents=whole.latents[originals],
        unseen=unseen,
    )


def surroundings(height: int, width: int) -> npt.NDArray[np.int64]:
    """The positions that surround each of a map's, numbered row by row: [height width, 8 for each of DISTANCES].

    They lie above, below, beside and diagonally. Those beyond the edge are replaced by those on the opposite side of
    the position, or by the farthest ones, and never by the position itself.
    """
    around = []
    for distance, down, across in itertools.product(DISTANCES, (-1, 0, 1), (-1, 0, 1)):
        if down or across:
            rows, columns = _away(height, down * distance), _away(width, across * distance)
            around.append((rows[:, np.newaxis] * width + columns).reshape(-1))
    return np.stack(around, axis=1)


def errors_by_surroundings(maps: Array, axes: Array, kernel: Array) -> Array:
    """Root mean squared error of each position, reconstructed from its surroundings: [n, h, w]."""
    squares = np.square(maps - (_components_around(maps, axes) @ kernel).reshape(maps.shape))
    errors: Array = np.sqrt(squares.mean(axis=-1))
    return errors


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


def _by_surroundings(maps: Array, axes: Array, folds: Array, originals: Array) -> tuple[Array, Array]:
    """(kernel, errors [n, h, w] of the original maps by kernels without the maps of the same fold); `folds` [N]."""
    size, channels = axes.shape[1] * len(DISTANCES) * 8, maps.shape[-1]
    moments = np.zeros((folds.max() + 1, size, size + channels))
    for row in range(0, len(maps), math.ceil(len(maps) / _MOST_MAPS)):
        one = maps[row : row + 1].astype(np.float32)
        around = _components_around(one, axes)[0]
        moments[folds[row]] += around.T @ np.concatenate([around, one.reshape(-1, channels)], axis=1)
        moments[folds[row], :, :size] += _RIDGE * len(around) * np.eye(size)
    total = moments.sum(axis=0)
    unseen = np.empty((len(originals), *maps.shape[1:3]), np.float32)
    for fold, of_fold in enumerate(moments):
        kernel = _regression(total - of_fold)
        for row in np.flatnonzero(folds[originals] == fold):
            own = originals[row : row + 1]
            unseen[row] = errors_by_surroundings(maps[own].astype(np.float32), axes, kernel)[0]
    return _regression(total), unseen


def _regression(moments: Array) -> Array:
    """The kernel [s, c] for sums of products [s, s + c] of inputs with inputs, penalised, and with targets."""
    size = len(moments)
    kernel: Array = scipy.linalg.solve(moments[:, :size], moments[:, size:], assume_a="pos").astype(np.float32)
    return kernel


class _WholeMaps:
    """Principal components of maps in terms of these maps.

    With fewer maps than values in a map, their inner products have all that is needed (Turk & Pentland 1991,
    doi:10.1162/jocn.1991.3.1.71).
    """

    def __init__(self, gram: Array, components: int) -> None:
        """`gram` [N, N]: inner products of the maps."""
        means, last = gram.mean(axis=0), len(gram) - 1
        centred = gram - means - means[:, np.newaxis] + means.mean()
        self.components = max(1, min(components, last))
        values, vectors = scipy.linalg.eigh(centred, subset_by_index=(last + 1 - self.components, last))
        values, vectors = np.maximum(values[::-1], _SMALLEST), vectors[:, ::-1]
        self.into_axes: Array = (vectors / np.sqrt(values)).astype(np.float32)
        """[N, Z]: the centred maps times this are the axes."""
        self.deviations: Array = np.sqrt(values / max(last, 1)).astype(np.float32)
        self.latents: Array = (vectors * np.sqrt(max(last, 1))).astype(np.float32)


def _leading(scatter: Array, components: int) -> Array:
    """The eigenvectors [c, k] with the largest eigenvalues."""
    channels = len(scatter)
    vectors = scipy.linalg.eigh(scatter, subset_by_index=(channels - components, channels - 1))[1]
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


def _portions(values: int) -> Iterator[tuple[int, int]]:
    """(start, end) of consecutive values of a map."""
    return ((start, min(start + _COLUMNS, values)) for start in range(0, values, _COLUMNS))
