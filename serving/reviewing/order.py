"""Which image to look at next: near the threshold, unlike those before it, from other groups and places."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Latents = npt.NDArray[np.floating[Any]]
_SMALLEST = 1e-300
_UNKNOWN = 1e6


def distance_from_threshold(p_values: Sequence[float], rate: float) -> npt.NDArray[np.float64]:
    """|ln(p / rate)| of each p-value [N]: 0 where the verdict tips. For NaN, larger than any other."""
    p = np.asarray(p_values, np.float64)
    return np.where(np.isnan(p), _UNKNOWN, np.abs(np.log(np.maximum(np.nan_to_num(p), _SMALLEST) / rate)))


def most_informative_first(
    p_values: Sequence[float],
    latents: Latents,
    groups: Sequence[Hashable],
    places: Sequence[Hashable],
    *,
    rate: float,
    seen: Latents,
) -> list[int]:
    """The order, as indices, in which a person should look at N images.

    The next image is always the one with the largest product of three factors:

    - urgency, 1 / (1 + |ln(p / rate)|): 1 for a p-value that equals the false-alarm rate, where the verdict tips. The
      scale is logarithmic, because p-values are rates. Without a p-value (NaN) an image is least urgent.
    - novelty, d / (d + t): d is the distance of its latent from the nearest one that a person, or the model's
      calibration, has seen or that comes earlier in the order (greedy k-center; Sener & Savarese 2018,
      arXiv:1708.00489), and t the median distance from `seen`. So each new kind of image has its first example early.
    - spread, 1 / ((1 + g) (1 + r)): g earlier images are of the same group, and r show their strongest region in the
      same place.

    `latents` is [N, Z] and `seen` [M, Z], where M may be 0; `rate` is in (0, 1). Equal products keep their given order.
    """
    count = len(p_values)
    if count == 0:
        return []
    urgency = 1.0 / (1.0 + distance_from_threshold(p_values, rate))
    points = np.asarray(latents, np.float64)
    distance = _nearest(points, np.asarray(seen, np.float64))
    typical = float(np.median(distance)) if len(seen) else float(np.median(_from(points, points.mean(axis=0))))
    of_group, of_place = Counter[Hashable](), Counter[Hashable]()
    left, order = list(range(count)), []
    while left:
        novelty = np.array([_novelty(distance[i], typical) for i in left])
        spread = np.array([1.0 / ((1 + of_group[groups[i]]) * (1 + of_place[places[i]])) for i in left])
        chosen = left.pop(int(np.argmax(urgency[left] * novelty * spread)))
        order.append(chosen)
        of_group[groups[chosen]] += 1
        of_place[places[chosen]] += 1
        distance = np.minimum(distance, _from(points, points[chosen]))
    return order


def _novelty(distance: float, typical: float) -> float:
    if distance == 0.0 or np.isinf(distance):  # both may be 0
        return float(distance > 0.0)
    return distance / (distance + typical)


def _nearest(points: Latents, seen: Latents) -> Latents:
    """[N] distances to the nearest of `seen` [M, Z]; infinite if there are none."""
    distance = np.full(len(points), np.inf)
    for other in seen:
        distance = np.minimum(distance, _from(points, other))
    return distance


def _from(points: Latents, other: Latents) -> Latents:
    """[N] Euclidean distances of points [N, Z] from one [Z]."""
    distances: Latents = np.sqrt(np.sum((points - other) ** 2, axis=1))
    return distances
