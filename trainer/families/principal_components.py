"""Principal components of the training images: the floor that the gate compares with, and where linear paths start."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA, IncrementalPCA

from trainer.families.family import Images, TrainingImages

_BUDGET_BYTES = 168 * 2**20
"""Pixels that are decomposed at once: all of MNIST. Fitting needs twice as much in addition."""
_IMAGES_PER_COMPONENT = 10
"""Minimum, however large the images are."""


@dataclass(frozen=True)
class PrincipalComponents:
    """`mean` [D]; `axes` [K, D], orthonormal; `deviations` [K]: of the images along each axis, largest first.

    K is at most the number of images and of values D = H W C.
    """

    mean: Images
    axes: Images
    deviations: Images


def fit_pca(images: TrainingImages, components: int, to_pixels: Callable[[Images], Any]) -> PrincipalComponents:
    """PCA of the images' pixels in [0, 1], in whole if they fit into the memory budget.

    Otherwise it uses as many images as fit, but at least ten for each component, and if even those do not fit together,
    it works through them incrementally (Ross et al. 2008, doi:10.1007/s11263-007-0075-7).
    """
    values = int(np.prod(images.shape))
    fitting = max(1, _BUDGET_BYTES // (4 * values))
    count = min(images.count, max(_IMAGES_PER_COMPONENT * components, fitting))
    components = min(components, count, values)
    whole = count <= fitting
    portions = [(0, count)] if whole else _portions(count, max(components, fitting))
    pca = PCA(components, random_state=0) if whole else IncrementalPCA(components)
    learn = pca.fit if whole else pca.partial_fit
    with np.errstate(invalid="ignore"):  # images that are all alike have no variance to divide by
        for start, end in portions:
            learn(np.asarray(to_pixels(images.rows(slice(start, end)))).reshape(end - start, -1))
    deviations = np.sqrt(np.maximum(pca.explained_variance_, 0.0))
    return PrincipalComponents(*(array.astype(np.float32) for array in (pca.mean_, pca.components_, deviations)))


def _portions(count: int, size: int) -> Iterable[tuple[int, int]]:
    """(start, end) of consecutive portions of at least `size` rows, as the incremental fit needs."""
    starts = range(0, count - size + 1, size)
    return zip(starts, [*starts[1:], count], strict=True)
