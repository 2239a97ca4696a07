"""The table of scores: how well each one finds faint synthetic defects and, if labels are known, real anomalies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sklearn.metrics import roc_auc_score

from components.report.facts import Document
from components.report.scored_images import Model, Sample, read_test_images
from images.synthetic_defects import KINDS, mean_over_kinds
from schema.artifacts import NEIGHBOURS_FLOOR, PCA_FLOOR
from schema.calibration_record import CalibrationRecord

_AT_MOST: Final = 1000
"""Test images whose every score is computed, if labels are known."""
_MODELS: Final = {"candidate": "this model", PCA_FLOOR: "PCA", NEIGHBOURS_FLOOR: "nearest neighbours"}


@dataclass(frozen=True)
class ScoreRow:
    """A score's or a model's AUROC for each kind of synthetic defect, their mean, and for real anomalies if known."""

    name: str
    measured_on: str
    by_kind: tuple[float | None, ...]
    mean: float
    real: float | None
    chosen: bool = False


def score_rows(
    model: Model, examples_uri: str, sample: Sample, *, calibration: CalibrationRecord, gate: Document
) -> list[ScoreRow]:
    """The scores that `auto` compared, best first, then the model and the simple models; [] if nothing was measured."""
    real = _real_aurocs(model, examples_uri, sample) if calibration.auroc_by_score else {}
    scores = [
        _row(name, "held-out images", by_kind, real.get(name), chosen=name == calibration.score)
        for name, by_kind in calibration.auroc_by_score.items()
    ]
    known = {"this model": gate["metrics"].get("auroc")}
    known |= {name: values.get("auroc") for name, values in gate.get("simple_models", {}).items()}
    synthetic = gate.get("synthetic_auroc", {})  # reports of older runs lack it
    models = [
        _row(readable, "test images", synthetic[name], known.get(readable))
        for name, readable in _MODELS.items()
        if synthetic.get(name)
    ]
    return sorted(scores, key=lambda row: -row.mean) + models


def _row(
    name: str, measured_on: str, by_kind: Mapping[str, float], real: float | None, *, chosen: bool = False
) -> ScoreRow:
    values = tuple(by_kind.get(kind) for kind in KINDS)
    return ScoreRow(name, measured_on, values, mean_over_kinds(by_kind), real, chosen)


def _real_aurocs(model: Model, examples_uri: str, sample: Sample) -> dict[str, float]:
    """Score -> AUROC on at most 1,000 images of the sample, evenly spaced, if it has normal and anomalous ones."""
    known = np.flatnonzero(sample.is_anomaly >= 0)
    chosen = known[:: max(1, -(-len(known) // _AT_MOST))]
    is_anomaly = sample.is_anomaly[chosen]
    if model.all_scores is None or len(set(is_anomaly)) < 2:
        return {}
    images = [image.encoded for image in read_test_images(examples_uri, (sample.positions[row] for row in chosen))]
    starts = range(0, len(images), model.at_a_time)
    parts: list[dict[str, Any]] = [model.all_scores(images[i : i + model.at_a_time]) for i in starts]
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {
        name: float(roc_auc_score(is_anomaly, values)) for name, values in scores.items() if np.isfinite(values).all()
    }
