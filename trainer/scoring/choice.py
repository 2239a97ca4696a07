"""`evaluation.score: auto`: the score that best finds faint synthetic defects in held-out normal images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from images.region_of_interest import Inside
from images.synthetic_defects import KINDS, mean_over_kinds, paint
from runtime.traced_once import traced_once
from trainer.scoring.error_maps import Tensors
from trainer.scoring.learners import require_finite
from trainer.scoring.scores import Batches
from trainer.settings.calibration import ScoreName

PREFERENCE: Final[tuple[ScoreName, ...]] = (
    "error", "worst_pixels", "standardised_patch", "patch_max", "weighted_error",
    "local_ssim", "blurred_error", "cosine_distance", "latent_distance", "neighbour_distance",
)  # fmt: skip
"""The scores that `auto` compares; of those that find the defects equally well within the noise, the first is used."""
CHOSEN_ON: Final = 128
"""Held-out images that the scores are compared on."""
_SMALLEST: Final = 1e-12
_SEED: Final = 20
"""Of the defects: the same in every run, so that a change of score has a reason in the images or the model."""

ScoreFn = Callable[[tf.Tensor, Tensors], tf.Tensor]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """`score` was chosen; `auroc`: score -> kind of defect -> AUROC against the same images without defects."""

    score: ScoreName
    auroc: dict[str, dict[str, float]]


def choose(
    scores: Mapping[ScoreName, ScoreFn],
    normal: Batches,
    autoencode: Callable[[tf.Tensor], Tensors],
    inside_of: Callable[[npt.NDArray[np.float32]], Inside | None] | None = None,
    group_of: Callable[[Tensors], tf.Tensor] | None = None,
) -> Choice:
    """Choose a score by the normal images, which are painted with one defect of every kind in turn.

    `inside_of`: images [N, H, W, C] -> the pixels [N, H, W] that count, in which the defects lie, or None.

    If there are groups, `group_of` gives those of images [B] by the outputs for them, and a score counts as what it is
    relative to the normal images of the group.

    A score counts as equal to the best one if its mean AUROC over the kinds is lower by less than one standard error of
    the difference (DeLong et al. 1988, with an image and its defects as one unit). Raises ScoreError if a score is
    not finite.
    """
    compute = traced_once(lambda pixels, outputs: {name: score(pixels, outputs) for name, score in scores.items()})
    collected: dict[str, list[dict[str, Values]]] = {kind: [] for kind in ("", *KINDS)}
    first, groups = 0, list[Values]()
    for pixels, outputs in normal():
        images = pixels.numpy()
        inside = None if inside_of is None else inside_of(images)
        if group_of is not None:
            groups.append(group_of(outputs).numpy())
        collected[""].append(_as_arrays(compute(pixels, outputs)))
        for kind in KINDS:
            painted = tf.constant(paint(images, kind, seed=_SEED, first=first, inside=inside))
            collected[kind].append(_as_arrays(compute(painted, autoencode(painted))))
        first += len(pixels)
    found = {
        kind: {name: np.concatenate([part[name] for part in parts]) for name in scores}
        for kind, parts in collected.items()
    }
    if group_of is not None:
        found = _relative_to_groups(found, np.concatenate(groups))
    return choice_of(found.pop(""), found)


def _relative_to_groups(
    found: Mapping[str, Mapping[ScoreName, Values]], group: Values
) -> dict[str, dict[ScoreName, Values]]:
    """The scores [n] in units of their image's group [n], whose normal images have median 0 and 95th percentile 1."""
    relative: dict[str, dict[ScoreName, Values]] = {kind: {} for kind in found}
    for name, normal in found[""].items():
        typical, high = np.empty_like(normal), np.empty_like(normal)
        for number in np.unique(group):
            typical[group == number], high[group == number] = np.percentile(normal[group == number], (50, 95))
        for kind, scores in found.items():
            relative[kind][name] = (scores[name] - typical) / np.maximum(high - typical, _SMALLEST)
    return relative


def choice_of(normal: Mapping[ScoreName, Values], defective: Mapping[str, Mapping[ScoreName, Values]]) -> Choice:
    """As `choose`, from scores: name -> [n] of normal images; kind -> name -> [n] of the same images with a defect."""
    for name, values in normal.items():
        require_finite(values, name)
    contributions = {
        name: {kind: auroc_contributions(values, of_kind[name]) for kind, of_kind in defective.items()}
        for name, values in normal.items()
    }
    means = {name: mean_over_kinds(by_kind) for name, by_kind in contributions.items()}
    best = means[max(means, key=lambda name: means[name].mean())]
    equal = [name for name, mean in means.items() if (best - mean).mean() <= _standard_error(best - mean)]
    auroc = {
        str(name): {kind: float(values.mean()) for kind, values in by_kind.items()}
        for name, by_kind in contributions.items()
    }
    return Choice(min(equal, key=PREFERENCE.index), auroc)


def auroc_contributions(normal: Values, defective: Values) -> Values:
    """[n]: what each image and its defect contribute to the AUROC, which is their mean; ties count half."""
    wins = _shares_below(normal, defective) + 1.0 - _shares_below(defective, normal)
    return wins / 2.0


def _shares_below(values: Values, of: Values) -> Values:
    """Share of `values` that are below each number of `of`; equal ones count half."""
    ordered = np.sort(values)
    below, at_most = (np.searchsorted(ordered, of, side=side) for side in ("left", "right"))
    shares: Values = (below + at_most) / (2.0 * len(values))
    return shares


def _standard_error(differences: Values) -> float:
    """Of the mean; an image contributes twice, through its own score and through its defect's."""
    return float(2.0 * differences.std(ddof=1) / np.sqrt(len(differences))) if len(differences) > 1 else 0.0


def _as_arrays(scores: Mapping[str, tf.Tensor]) -> dict[str, Values]:
    return {name: values.numpy().astype(np.float64) for name, values in scores.items()}
