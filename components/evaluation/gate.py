"""The gate: the configuration's bounds -> a TFMA EvalConfig; metrics and bounds -> TFMA's verdict, a row per bound."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow_model_analysis as tfma
from google.protobuf import wrappers_pb2
from tensorflow_model_analysis.evaluators.metrics_validator import validate_metrics
from tensorflow_model_analysis.metrics.metric_types import MetricKey
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.writers.metrics_plots_and_validations_writer import CombineValidations

from components.evaluation import metrics, tfma_metrics
from components.evaluation.control_metrics import MetricsByLabel
from components.evaluation.metrics import METRICS
from components.settings import GateSettings
from schema import features
from schema.signatures import EXAMPLES_SIGNATURE

CANDIDATE = "candidate"
BASELINE = "baseline"
_DIFFERENCE = "_diff"
"""What TFMA appends to a metric's name for the difference to the baseline's."""


@dataclass(frozen=True)
class Bound:
    """`metric` must lie in [min, max], over all images or those of one label.

    `origin` says where the bound comes from: `configured`, `counted`, `PCA floor`, `identity`, `detection` or
    `baseline`, for which `max` is the fraction by which the metric may be worse than the baseline's.
    """

    metric: str
    origin: str
    min: float | None = None
    max: float | None = None
    label: str | None = None

    @property
    def tfma_name(self) -> str:
        """What the metric is called in TFMA's results."""
        if self.label is None or not METRICS[self.metric].sets_apart:
            return self.metric
        return f"{self.metric}{metrics.OF_LABEL}{self.label}"

    def slicing_spec(self) -> Any:
        """The TFMA slice that the bound speaks of."""
        if self.label is None or METRICS[self.metric].sets_apart:
            return config_pb2.SlicingSpec()
        return config_pb2.SlicingSpec(feature_values={features.LABEL: self.label})

    def threshold(self) -> Any:
        """The bound as TFMA states it."""
        if self.origin == BASELINE:
            rises = METRICS[self.metric].better == metrics.HIGHER
            direction = config_pb2.MetricDirection
            return config_pb2.MetricThreshold(
                change_threshold=config_pb2.GenericChangeThreshold(
                    direction=direction.HIGHER_IS_BETTER if rises else direction.LOWER_IS_BETTER,
                    relative=wrappers_pb2.DoubleValue(value=-(self.max or 0.0) if rises else self.max or 0.0),
                )
            )
        limits = {"lower_bound": self.min, "upper_bound": self.max}
        given = {name: wrappers_pb2.DoubleValue(value=limit) for name, limit in limits.items() if limit is not None}
        return config_pb2.MetricThreshold(value_threshold=config_pb2.GenericValueThreshold(**given))


def bounds_of(settings: GateSettings, *, pca_error: float | None, knows_anomalies: bool) -> list[Bound]:
    """All bounds of a run; the PCA floor becomes an ordinary one once PCA's error on the same images is known."""
    bounds = [Bound("example_count", "counted", min=1.0)]
    if settings.max_pca_ratio is not None and pca_error is not None:
        bounds.append(Bound("mean_error", "PCA floor", max=settings.max_pca_ratio * pca_error))
    if settings.max_noise_copied is not None:
        bounds.append(Bound("noise_copied", "identity", max=settings.max_noise_copied))
    if settings.min_auroc is not None and knows_anomalies:
        bounds.append(Bound("auroc", "detection", min=settings.min_auroc))
    if settings.max_regression is not None:
        bounds.append(Bound("mean_error", BASELINE, max=settings.max_regression))
    for t in settings.thresholds:
        if t.min is not None or t.max is not None:
            bounds.append(Bound(t.metric, "configured", t.min, t.max, t.label))
        if t.max_regression is not None:
            bounds.append(Bound(t.metric, BASELINE, max=t.max_regression, label=t.label))
    return bounds


def eval_config(bounds: list[Bound]) -> Any:
    """TFMA's configuration: every metric, overall and per label, with the bounds as thresholds."""
    configs = []
    for name in dict.fromkeys([*METRICS, *(bound.tfma_name for bound in bounds)]):
        per_slice = [
            config_pb2.PerSliceMetricThreshold(slicing_specs=[bound.slicing_spec()], threshold=bound.threshold())
            for bound in bounds
            if bound.tfma_name == name
        ]
        configs.append(
            config_pb2.MetricConfig(
                class_name=tfma_metrics.ReconstructionMetric.__name__,
                module=tfma_metrics.__name__,
                config=json.dumps({"name": name}),
                per_slice_thresholds=per_slice,
            )
        )
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=CANDIDATE, signature_name=EXAMPLES_SIGNATURE),
            config_pb2.ModelSpec(name=BASELINE, signature_name=EXAMPLES_SIGNATURE, is_baseline=True),
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[features.LABEL])],
        metrics_specs=[config_pb2.MetricsSpec(metrics=configs)],
    )


def read_metrics(evaluation_uri: str, model_name: str) -> MetricsByLabel:
    """Label (None: all images) -> metric -> value, as TFMA wrote them for one model; {} if it was not evaluated.

    A metric that could not be computed, for want of images or of knowledge about them, is left out.
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
    """(label, metric, value) of TFMA's result; a detection's metrics are told of a label by the slice of all images."""
    for key, values in result.slicing_metrics:
        label = key[0][1] if key else None
        of_slice = values[""][""]
        for tfma_name, value in of_slice.items():
            if tfma_name.removesuffix(_DIFFERENCE) != tfma_name and tfma_name.removesuffix(_DIFFERENCE) in of_slice:
                continue
            name, _, of_label = tfma_name.partition(metrics.OF_LABEL)
            if label is None or not METRICS[name].sets_apart:
                yield of_label or label, name, _double(value)


@dataclass(frozen=True)
class Verdict:
    """What TFMA says of one model's metrics."""

    rows: list[dict[str, Any]]
    """One per bound: metric, label (None: all images), origin, min, max, value, passed, and, if refused, a reason."""
    validation: Any
    """tensorflow_model_analysis.ValidationResult."""

    @property
    def blessed(self) -> bool:
        return self.validation.validation_ok and all(row["passed"] for row in self.rows)


def judge(bounds: list[Bound], candidate: MetricsByLabel, baseline: MetricsByLabel) -> Verdict:
    """Hold metrics against bounds by TFMA's own validator; without a baseline, bounds that need one say nothing."""
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
        row = {
            "metric": bound.metric,
            "label": bound.label,
            "origin": bound.origin,
            "min": lower,
            "max": upper,
            "value": value,
            "passed": not failed,
        }
        rows.append({**row, "reason": _reason(row) if failed else None})
    return Verdict(rows, validation)


def _validate(bounds: list[Bound], candidate: MetricsByLabel, baseline: MetricsByLabel) -> Any:
    """TFMA's ValidationResult, slice by slice and then of all, as its own writer makes it."""
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
    """What TFMA has under that name in that slice; NaN, which no bound accepts, if it is not known."""
    name, _, of_label = tfma_name.partition(metrics.OF_LABEL)
    if METRICS[name].sets_apart and slice_label is not None:
        return math.nan
    return found.get(of_label or slice_label, {}).get(name, math.nan)


def _limits(bound: Bound, baseline: MetricsByLabel) -> tuple[float | None, float | None]:
    """(min, max) as numbers; none where the baseline lacks the metric."""
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
        return f"{row['metric']} over {images} could not be computed: there are none, or too little is known of them"
    source = "" if row["origin"] == "configured" else f" ({row['origin']})"
    if row["min"] is not None and not row["value"] >= row["min"]:
        return f"{row['metric']} over {images} is {row['value']:.6g}, below the bound {row['min']:.6g}{source}"
    if row["max"] is None:
        return f"{row['metric']} over {images} cannot be compared: the {row['origin']} model has none"
    return f"{row['metric']} over {images} is {row['value']:.6g}, above the bound {row['max']:.6g}{source}"


def _slicing_spec(slice_key: Any) -> Any:
    for single in slice_key.single_slice_keys:
        return config_pb2.SlicingSpec(feature_values={single.column: single.bytes_value.decode()})
    return config_pb2.SlicingSpec()


def _double(value: dict[str, Any]) -> float:
    return float(value["doubleValue"])
