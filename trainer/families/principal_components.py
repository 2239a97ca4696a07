"""Principal components of the training images: the floor that the gate compares with, and where linear paths start."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, qr  # type: ignore[import-untyped]

from trainer.families.family import Images, TrainingImages

_BUDGET_BYTES = 168 * 2**20
"""Pixels that are decomposed: all of MNIST."""
_IMAGES_PER_COMPONENT = 10
"""Minimum, however large the images are."""
_PORTION_BYTES = 64 * 2**20
"""Pixels that are in memory at once, in double precision; twice if images have more pixels than there are images."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PrincipalComponents:
    """`mean` [D]; `axes` [K, D], orthonormal; `deviations` [K]: of the images along each axis, largest first.

    K is at most the number of images and of values D = H W C.
    """

    mean: Images
    axes: Images
    deviations: Images


def fit_pca(images: TrainingImages, components: int, to_pixels: Callable[[Images], Any]) -> PrincipalComponents:
    """PCA of the pixels in [0, 1] of as many images as the budget allows, but at least ten for each component.

    It decomposes the covariance of the values, or the products of the images if these are fewer, and reads the images
    in portions.
    """
    values = int(np.prod(images.shape))
    count = min(images.count, max(_IMAGES_PER_COMPONENT * components, _BUDGET_BYTES // (4 * values)))
    at_a_time = max(1, _PORTION_BYTES // (8 * values))
    parts = [slice(start, min(start + at_a_time, count)) for start in range(0, count, at_a_time)]

    def pixels(part: slice) -> Floats:
        return np.asarray(to_pixels(images.rows(part)), np.float64).reshape(-1, values)

    fit = _by_covariance if values <= count else _by_products
    mean, axes, squares = fit(pixels, parts, min(components, count, values))
    deviations = np.sqrt(np.maximum(squares, 0.0) / max(count - 1, 1))
    return PrincipalComponents(*(array.astype(np.float32) for array in (mean, axes, deviations)))


def _by_covariance(
    pixels: Callable[[slice], Floats], parts: Sequence[slice], components: int
) -> tuple[Floats, Floats, Floats]:
    """Mean [D], axes [K, D] and sums of squares along them [K], from the products of the values [D, D]."""
    count = parts[-1].stop
    total: Any = 0.0
    products: Any = 0.0
    for part in parts:
        own = pixels(part)
        total, products = total + own.sum(axis=0), products + own.T @ own
    mean: Any = total / count
    squares, axes = _largest(products - count * np.outer(mean, mean), components)
    return mean, axes.T, squares


def _by_products(
    pixels: Callable[[slice], Floats], parts: Sequence[slice], components: int
) -> tuple[Floats, Floats, Floats]:
    """The same from the products of the images [N, N] (Turk & Pentland 1991, doi:10.1162/jocn.1991.3.1.71)."""
    count = parts[-1].stop
    products = np.empty((count, count))
    total: Any = 0.0
    for number, part in enumerate(parts):
        own = pixels(part)
        total = total + own.sum(axis=0)
        products[part, part] = own @ own.T
        for other in parts[:number]:
            products[part, other] = own @ pixels(other).T
            products[other, part] = products[part, other].T
    mean: Any = total / count
    of_rows = products.mean(axis=0)
    squares, weights = _largest(products - of_rows - of_rows[:, np.newaxis] + of_rows.mean(), components)
    projected = -np.outer(weights.sum(axis=0), mean)
    for part in parts:
        projected += weights[part].T @ pixels(part)
    # Orthonormal also where there is no variance to divide by, as if images are all alike.
    axes, _ = qr(projected.T, mode="economic", overwrite_a=True, check_finite=False)
    return mean, axes.T, squares


def _largest(symmetric: Floats, count: int) -> tuple[Floats, Floats]:
    """The largest eigenvalues [count] of a matrix [M, M], in descending order, and their vectors [M, count]."""
    size = len(symmetric)
    values, vectors = eigh(symmetric, subset_by_index=[size - count, size - 1], overwrite_a=True)
    return values[::-1], vectors[:, ::-1]
