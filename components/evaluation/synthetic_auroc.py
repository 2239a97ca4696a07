"""How well a model finds faint synthetic defects in normal test images, measured like every metric: by its scores."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from components.evaluation.bare_examples import bare_example
from images.levels import EIGHT_BIT_LEVELS, Levels
from images.region_of_interest import Inside
from images.synthetic_defects import KINDS, paint
from runtime.tfrecords import as_many_as_fit, each_record, features_of
from runtime.traced_once import traced_once
from schema.features import IS_ANOMALY, UNKNOWN
from schema.signatures import ERROR_LEVELS, SCORE

AT_MOST: Final = 128
_FEWEST: Final = 20
"""Images that are measured however large they are."""
_PIXELS: Final = 2**25
"""Of all images together, if there are more."""
_NORMAL: Final = ""
_SEED: Final = 21
"""Another one than the seed of the defects that `evaluation.score: auto` compares scores by."""

_LOG = logging.getLogger(__name__)

Pixels = npt.NDArray[Any]
Painted = Iterable[tuple[str, list[bytes]]]
"""(kind of defect, or empty for none; serialized tf.Examples of the same images [N])."""


def count_known(test: str) -> dict[int, int]:
    """Images of the split in the folder `test` by `is_anomaly`: 0 normal, 1 anomalous, -1 unknown."""
    counts = {0: 0, 1: 0, UNKNOWN: 0}
    for record in each_record([f"{test}/*"]):
        counts[_is_anomaly(record)] += 1
    return counts


def most_images(height_px: int, width_px: int, *, at_most: int = AT_MOST) -> int:
    """How many images of this size are measured, at most: fewer if they are large, because all are in memory."""
    return min(at_most, max(_FEWEST, _PIXELS // (height_px * width_px)))


def normal_records(test: str, count: int, *, at_most: int) -> list[bytes]:
    """At most `at_most` of the `count` records of the split that are not known to be anomalous, evenly spaced."""
    normal = (record for record in each_record([f"{test}/*"]) if _is_anomaly(record) != 1)
    every = max(1, -(-count // at_most))
    return [record for number, record in enumerate(normal) if number % every == 0]


def painted(images: Pixels, levels: Levels = EIGHT_BIT_LEVELS, inside: Inside | None = None) -> Painted:
    """Images [N, H, W, C], and the same with one defect of every kind, in the region `inside` [N, H, W]; in turn."""
    for kind in (_NORMAL, *KINDS):
        version = paint(images, kind, seed=_SEED, inside=inside) if kind else images
        yield kind, [bare_example(file) for file in levels.files(version, inside)]


def synthetic_aurocs(signatures: Mapping[str, Any], examples: Painted) -> dict[str, dict[str, float]]:
    """Model -> kind of defect -> AUROC of the scores by its signature for tf.Examples; {} if one is not finite."""
    scorers = {name: _scorer(signature) for name, signature in signatures.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in signatures}
    for number, (kind, serialized) in enumerate(examples):
        for name, scores in scorers.items():
            found[name][kind] = scores(serialized)
        _LOG.info("synthetic defects", extra={"done": number, "total": len(KINDS), "unit": "kinds of defect"})
    return {name: _aurocs(by_kind) for name, by_kind in found.items()}


def _scorer(signature: Any) -> Callable[[list[bytes]], Any]:
    at_a_time = as_many_as_fit(signature.structured_outputs[ERROR_LEVELS].shape[1:])
    # A function of its own, of which TensorFlow leaves out what the score does not need, such as the probes.
    score_of = traced_once(lambda batch: signature(examples=batch)[SCORE])

    def scores(serialized: list[bytes]) -> Any:
        starts = range(0, len(serialized), at_a_time)
        return np.concatenate([score_of(tf.constant(serialized[i : i + at_a_time])).numpy() for i in starts])

    return scores


def _aurocs(by_kind: dict[str, Any]) -> dict[str, float]:
    if not all(np.isfinite(values).all() for values in by_kind.values()):
        return {}
    normal = by_kind.pop(_NORMAL)
    is_anomaly = np.repeat([0, 1], len(normal))
    return {
        kind: float(roc_auc_score(is_anomaly, np.concatenate([normal, values]))) for kind, values in by_kind.items()
    }


def _is_anomaly(record: bytes) -> int:
    feature = features_of(record)
    return int(feature[IS_ANOMALY].int64_list.value[0]) if IS_ANOMALY in feature else UNKNOWN
