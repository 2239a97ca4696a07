"""The gate: checks a model's metrics against the bounds, with TFMA's own validator, and explains each verdict."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.evaluators.metrics_validator import validate_metrics
from tensorflow_model_analysis.metrics.metric_types import MetricKey
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.writers.metrics_plots_and_validations_writer import CombineValidations

from components.evaluation import metrics
from components.evaluation.bounds import BASELINE, CANDIDATE, Bound, eval_config
from components.evaluation.control_metrics import MetricsByLabel
from components.evaluation.metrics import METRICS
from schema import features
from schema.changes import ALARMS_AT

_DIFFERENCE = "_diff"
"""What TFMA appends to a metric's name for the difference from the baseline."""
_BETTER_DETECTION = "set evaluation.score to auto if it is not, or try the other presets with autoencoder compare"
"""The remedy for a model that finds fewer defects than it must."""
_STEADIER = (
    "add training images taken under such changes, use the preset features with trainer.steady_against, or raise this "
    "bound in evaluation.thresholds"
)
"""The remedy for a model that raises too many alarms at a harmless change."""
_NOTHING_TO_EXPLAIN = {"reason": None, "remedy": None}
_REMEDIES = {
    "configured": "train on more images or for more epochs, or change this bound in evaluation.thresholds",
    "counted": "add images to split 'test'",
    "PCA floor": "raise trainer.epochs or set trainer.preset to residual; to find defects rather than to reconstruct "
    "images, set evaluation.purpose to detect",
    "identity": "lower trainer.latent_dim, so that the model cannot copy its input",
    "floor: chance": "try the other presets with autoencoder compare; if there are few test images, add more: a good "
    "model passes then, because less of its result can be chance",
    "constant": "raise trainer.epochs: the model reconstructs images no better than their mean does",
}
"""By the bound's origin."""


def read_metrics(evaluation_uri: str, model_name: str) -> MetricsByLabel:
    """Label (None: all images) -> metric -> value, as TFMA wrote them for one model; {} if it was not evaluated.

    A metric that could not be computed is left out.
    """
    names = [spec.name for spec in tfma.load_eval_result(evaluation_uri).config.model_specs]
    if model_name == BASELINE and BASELINE not in names:
        return {}
    result = tfma.load_eval_result(evaluation_uri, model_name=model_name if len(names) > 1 else None)
    found: MetricsByLabel = {}
    for label, name, value in _values(result):
        of_label = found.setdefault(label, {})
        if math.isfinite(value):
            of_label[name] = value
    return found


def _values(result: Any) -> Iterator[tuple[str | None, str, float]]:
    """(label, metric, value) of TFMA's result; a label's detection metrics come from the slice of all images."""
    for key, values in result.slicing_metrics:
        label = key[0][1] if key else None
        of_slice = values[""][""]
        for tfma_name, value in of_slice.items():
            if tfma_name.removesuffix(_DIFFERENCE) != tfma_name and tfma_name.removesuffix(_DIFFERENCE) in of_slice:
                continue
            name, _, of_label = tfma_name.partition(metrics.LABEL_SEPARATOR)
            if label is None or not METRICS[name].needs_anomalies:
                yield of_label or label, name, float(value["doubleValue"])


@dataclass(frozen=True)
class Verdict:
    """Whether one model's metrics meet the bounds."""

    rows: list[dict[str, Any]]
    """One per bound: metric, label (None: all images), origin, min, max, value, passed, reason, remedy.

    The last two are None if the bound is met.
    """
    validation: Any
    """tensorflow_model_analysis.ValidationResult."""

    @property
    def blessed(self) -> bool:
        return self.validation.validation_ok and all(row["passed"] for row in self.rows)


def judge(
    bounds: list[Bound], candidate: MetricsByLabel, baseline: MetricsByLabel, *, more_pixels: str = ""
) -> Verdict:
    """Check metrics against bounds with TFMA's own validator; skip bounds that need a baseline if there is none.

    `more_pixels`: the first remedy if the model finds too few of the real defects (see `scaling`).
    """
    validation = _validate(bounds, candidate, baseline)
    failures = [
        (failure.metric_key.name, _slicing_spec(slice_.slice_key), failure.metric_threshold)
        for slice_ in validation.metric_validations_per_slice
        for failure in slice_.failures
    ]
    rows = []
    for bound in bounds:
        if bound.origin == BASELINE and not baseline:
            continue
        value = candidate.get(bound.label, {}).get(bound.metric)
        failed = value is None or any(
            (name, slice_) == (bound.tfma_name, bound.slicing_spec()) and threshold == bound.threshold()
            for name, slice_, threshold in failures
        )
        lower, upper = _limits(bound, baseline)
        row = {"metric": bound.metric, "label": bound.label, "origin": bound.origin, "min": lower, "max": upper}
        row |= {"value": value, "passed": not failed}
        explained = {"reason": _reason(row), "remedy": _remedy(row, more_pixels)} if failed else _NOTHING_TO_EXPLAIN
        rows.append({**row, **explained})
    return Verdict(rows, validation)


def _validate(bounds: list[Bound], candidate: MetricsByLabel, baseline: MetricsByLabel) -> Any:
    """TFMA's ValidationResult: each slice is validated, then all are combined, as TFMA's own writer does."""
    config = tfma.utils.update_eval_config_with_defaults(
        eval_config(bounds), has_baseline=bool(baseline), rubber_stamp=True
    )
    names = [*METRICS, *(bound.tfma_name for bound in bounds)]
    combine = CombineValidations(config)
    combined = combine.create_accumulator()
    for label in candidate:
        keyed: dict[MetricKey, float] = {}
        for name in names:
            ours, theirs = _value(candidate, label, name), _value(baseline, label, name)
            keyed[MetricKey(name, model_name=CANDIDATE if baseline else "")] = ours
            if baseline:
                keyed[MetricKey(name, model_name=BASELINE)] = theirs
                keyed[MetricKey(name, model_name=CANDIDATE, is_diff=True)] = ours - theirs
        slice_key = () if label is None else ((features.LABEL, label),)
        combined = combine.add_input(combined, validate_metrics((slice_key, keyed), config))
    return combine.extract_output(combined)


def _value(found: MetricsByLabel, slice_label: str | None, tfma_name: str) -> float:
    """The value that TFMA has under that name in that slice; NaN, which no bound accepts, if unknown."""
    name, _, of_label = tfma_name.partition(metrics.LABEL_SEPARATOR)
    if METRICS[name].needs_anomalies and slice_label is not None:
        return math.nan
    return found.get(of_label or slice_label, {}).get(name, math.nan)


def _limits(bound: Bound, baseline: MetricsByLabel) -> tuple[float | None, float | None]:
    """(min, max) as absolute values; (None, None) if the baseline lacks the metric."""
    if bound.origin != BASELINE:
        return bound.min, bound.max
    known = baseline.get(bound.label, {}).get(bound.metric)
    if known is None:
        return None, None
    fraction = bound.max or 0.0
    if METRICS[bound.metric].better == metrics.HIGHER:
        return known * (1.0 - fraction), None
    return None, known * (1.0 + fraction)


def _reason(row: dict[str, Any]) -> str:
    images = "all images" if row["label"] is None else f"images labelled {row['label']!r}"
    if row["value"] is None:
        return f"{row['metric']} over {images} could not be computed: no such images, or the data it needs are missing"
    source = "" if row["origin"] == "configured" else f" ({row['origin']})"
    if row["min"] is not None and not row["value"] >= row["min"]:
        return f"{row['metric']} over {images} is {row['value']:.6g}, below the bound {row['min']:.6g}{source}"
    if row["max"] is None:
        return f"{row['metric']} over {images} cannot be compared: the {row['origin']} model lacks this metric"
    return f"{row['metric']} over {images} is {row['value']:.6g}, above the bound {row['max']:.6g}{source}"


def _remedy(row: dict[str, Any], more_pixels: str = "") -> str:
    """What to do about a failed bound, for the end of the line that reports it."""
    if row["value"] is None:
        return "remove this bound from evaluation.thresholds, or add images, labels or masks that it needs"
    if row["origin"] == BASELINE:
        return "train on more images or for more epochs, or allow more in evaluation.max_regression"
    if row["metric"].startswith(ALARMS_AT):
        return _STEADIER
    remedy = _REMEDIES.get(row["origin"], _BETTER_DETECTION)
    # Synthetic defects are painted at the model's size, so more pixels do not make them larger.
    return f"{more_pixels}; otherwise, {remedy}" if more_pixels and METRICS[row["metric"]].needs_anomalies else remedy


def _slicing_spec(slice_key: Any) -> Any:
    for single in slice_key.single_slice_keys:
        return config_pb2.SlicingSpec(feature_values={single.column: single.bytes_value.decode()})
    return config_pb2.SlicingSpec()
