"""The gate: the configuration's bounds -> a TFMA EvalConfig, and TFMA's verdict -> one row per bound."""

from dataclasses import dataclass
from typing import Any

import tensorflow_model_analysis as tfma
from google.protobuf import wrappers_pb2
from tensorflow_model_analysis.proto import config_pb2

from components import metrics
from components.settings import GateSettings
from schema import features
from schema.signatures import EXAMPLES_SIGNATURE

CANDIDATE = "candidate"
BASELINE = "baseline"


@dataclass(frozen=True)
class Bound:
    """`metric` must lie in [min, max], over all images or those of one label.

    `origin` says where the bound comes from: `configured`, `counted`, `PCA floor` or `baseline`. A baseline's `max` is
    relative: the fraction by which the metric may exceed the baseline's.
    """

    metric: str
    origin: str
    min: float | None = None
    max: float | None = None
    label: str | None = None

    def slicing_spec(self) -> Any:
        """The TFMA slice that the bound speaks of."""
        if self.label is None:
            return config_pb2.SlicingSpec()
        return config_pb2.SlicingSpec(feature_values={features.LABEL: self.label})

    def threshold(self) -> Any:
        """The bound as TFMA states it."""
        if self.origin == BASELINE:
            return config_pb2.MetricThreshold(
                change_threshold=config_pb2.GenericChangeThreshold(
                    direction=config_pb2.MetricDirection.LOWER_IS_BETTER,
                    relative=wrappers_pb2.DoubleValue(value=self.max or 0.0),
                )
            )
        limits = {"lower_bound": self.min, "upper_bound": self.max}
        given = {name: wrappers_pb2.DoubleValue(value=limit) for name, limit in limits.items() if limit is not None}
        return config_pb2.MetricThreshold(value_threshold=config_pb2.GenericValueThreshold(**given))


def bounds_of(settings: GateSettings, *, pca_error: float | None) -> list[Bound]:
    """All bounds of a run; the PCA floor becomes an ordinary one once PCA's error on the same images is known."""
    bounds = [Bound("example_count", "counted", min=1.0)]
    if settings.max_pca_ratio is not None and pca_error is not None:
        bounds.append(Bound("mean_error", "PCA floor", max=settings.max_pca_ratio * pca_error))
    if settings.max_regression is not None:
        bounds.append(Bound("mean_error", BASELINE, max=settings.max_regression))
    return bounds + [Bound(t.metric, "configured", t.min, t.max, t.label) for t in settings.thresholds]


def eval_config(bounds: list[Bound]) -> Any:
    """TFMA's configuration: every metric, overall and per label, with the bounds as thresholds."""
    configs = []
    for name in metrics.METRICS:
        per_slice = [
            config_pb2.PerSliceMetricThreshold(slicing_specs=[bound.slicing_spec()], threshold=bound.threshold())
            for bound in bounds
            if bound.metric == name
        ]
        configs.append(
            config_pb2.MetricConfig(
                class_name=metrics.ReconstructionMetric.__name__,
                module=metrics.__name__,
                config=f'{{"name": "{name}"}}',
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


def read_metrics(evaluation_uri: str, model_name: str) -> dict[str | None, dict[str, float]]:
    """Label (None: all images) -> metric -> value, as TFMA wrote them for one model; {} if it was not evaluated."""
    names = [spec.name for spec in tfma.load_eval_result(evaluation_uri).config.model_specs]
    if model_name == BASELINE and BASELINE not in names:
        return {}
    result = tfma.load_eval_result(evaluation_uri, model_name=model_name if len(names) > 1 else None)
    return {
        key[0][1] if key else None: {name: _double(value) for name, value in values[""][""].items()}
        for key, values in result.slicing_metrics
    }


def judge(evaluation_uri: str, bounds: list[Bound]) -> list[dict[str, Any]]:
    """One row per bound with its value and TFMA's own verdict; a bound that TFMA did not check is left out.

    Each row: metric, label (None: all images), origin, min, max, value, passed, and, if refused, a sentence.
    """
    candidate = read_metrics(evaluation_uri, CANDIDATE)
    baseline = read_metrics(evaluation_uri, BASELINE)
    validation = tfma.load_validation_result(evaluation_uri)
    failures = [
        (failure.metric_key.name, _label_of(slice_.slice_key), failure.metric_threshold)
        for slice_ in validation.metric_validations_per_slice
        for failure in slice_.failures
    ]
    rows = []
    for bound in bounds:
        if bound.origin == BASELINE and not baseline:
            continue
        value = candidate.get(bound.label, {}).get(bound.metric)
        failed = value is None or any(
            name == bound.metric and label == bound.label and threshold == bound.threshold()
            for name, label, threshold in failures
        )
        upper = bound.max
        if bound.origin == BASELINE:
            upper = baseline[None][bound.metric] * (1.0 + (bound.max or 0.0))
        row = {
            "metric": bound.metric,
            "label": bound.label,
            "origin": bound.origin,
            "min": bound.min,
            "max": upper,
            "value": value,
            "passed": not failed,
        }
        rows.append({**row, "reason": _reason(row) if failed else None})
    if all(row["passed"] for row in rows) != validation.validation_ok:
        raise RuntimeError(f"TFMA's verdict {validation.validation_ok} disagrees with its own failures: {validation}")
    return rows


def _reason(row: dict[str, Any]) -> str:
    images = "all images" if row["label"] is None else f"images labelled {row['label']!r}"
    if row["value"] is None:
        return f"{row['metric']} over {images} could not be computed: there are none"
    source = "" if row["origin"] == "configured" else f" ({row['origin']})"
    if row["min"] is not None and not row["value"] >= row["min"]:
        return f"{row['metric']} over {images} is {row['value']:.6g}, below the bound {row['min']:.6g}{source}"
    return f"{row['metric']} over {images} is {row['value']:.6g}, above the bound {row['max']:.6g}{source}"


def _label_of(slice_key: Any) -> str | None:
    for single in slice_key.single_slice_keys:
        return str(single.bytes_value.decode())
    return None


def _double(value: dict[str, Any]) -> float:
    return float(value.get("doubleValue", "nan"))
