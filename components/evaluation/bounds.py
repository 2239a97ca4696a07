"""The bounds that a model must meet, from the configuration, and TFMA's EvalConfig for them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import wrappers_pb2
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation import metrics, tfma_metrics
from components.evaluation.metrics import METRICS
from components.settings import GateSettings
from schema import features
from schema.signatures import EXAMPLES_SIGNATURE

CANDIDATE: Final = "candidate"
BASELINE: Final = "baseline"
_LEAST_EXPLAINED = 0.01
"""Explained variance that a model which has learnt anything exceeds; one that always returns the mean image has 0."""


@dataclass(frozen=True)
class Bound:
    """`metric` must lie in [min, max], over all images or those of one label.

    `origin` names the source of the bound: `configured`, `counted`, `PCA floor`, `identity`, `detection`, `constant`,
    `floor: PCA`, `floor: nearest neighbours`, `floor: chance` or `baseline`. For `baseline`, `max` is the fraction by
    which the metric may be worse than the baseline's.
    """

    metric: str
    origin: str
    min: float | None = None
    max: float | None = None
    label: str | None = None

    @property
    def tfma_name(self) -> str:
        """The metric's name in TFMA's results."""
        if self.label is None or not METRICS[self.metric].needs_anomalies:
            return self.metric
        return f"{self.metric}{metrics.LABEL_SEPARATOR}{self.label}"

    def slicing_spec(self) -> Any:
        """The TFMA slice that the bound applies to."""
        if self.label is None or METRICS[self.metric].needs_anomalies:
            return config_pb2.SlicingSpec()
        return config_pb2.SlicingSpec(feature_values={features.LABEL: self.label})

    def threshold(self) -> Any:
        """The bound as a TFMA MetricThreshold."""
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


def chance(normal: int, anomalous: int) -> float:
    """Standard error of the AUROC of this many images if it is 0.5, where it is largest (Mann & Whitney 1947)."""
    return math.sqrt((normal + anomalous + 1) / (12 * normal * anomalous))


def detection_floors(
    simple_models: Mapping[str, Mapping[str, float]], images: Mapping[str, tuple[int, int]]
) -> list[Bound]:
    """The bound of each known metric: as good as the better simple model, less one standard error of chance.

    It is at least 0.5 plus one, so that a ranking no better than chance is refused however bad the simple models are.
    `simple_models`: name -> metric -> value; `images`: metric -> numbers of normal and anomalous images.
    """
    bounds = []
    for metric, (normal, anomalous) in images.items():
        known = {name: values[metric] for name, values in simple_models.items() if metric in values}
        if known and normal and anomalous:
            deviation = chance(normal, anomalous)
            least = {name: value - deviation for name, value in known.items()} | {"chance": 0.5 + deviation}
            highest = max(least, key=lambda name: least[name])
            bounds.append(Bound(metric, f"floor: {highest}", min=least[highest]))
    return bounds


def bounds_of(
    settings: GateSettings, *, pca_error: float | None, knows_anomalies: bool, floors: Sequence[Bound] = ()
) -> list[Bound]:
    """All bounds of a run.

    `pca_error`, PCA's error on the same images, makes `max_pca_ratio` an absolute bound; `floors`, the bounds of
    `detection_floors`, replace it if the purpose is to detect.
    """
    bounds = [Bound("example_count", "counted", min=1.0)]
    detects = settings.purpose == "detect"
    if detects:
        bounds += [Bound("explained_variance", "constant", min=_LEAST_EXPLAINED), *floors]
    elif settings.max_pca_ratio is not None and pca_error is not None:
        bounds.append(Bound("mean_error", "PCA floor", max=settings.max_pca_ratio * pca_error))
    if settings.max_noise_copied is not None:
        bounds.append(Bound("noise_copied", "identity", max=settings.max_noise_copied))
    if settings.min_auroc is not None and knows_anomalies:
        bounds.append(Bound("auroc", "detection", min=settings.min_auroc))
    if settings.max_regression is not None:
        compared = metrics.SYNTHETIC_AUROC if detects and floors else "mean_error"
        bounds.append(Bound(compared, BASELINE, max=settings.max_regression))
    for t in settings.thresholds:
        if t.min is not None or t.max is not None:
            bounds.append(Bound(t.metric, "configured", t.min, t.max, t.label))
        if t.max_regression is not None:
            bounds.append(Bound(t.metric, BASELINE, max=t.max_regression, label=t.label))
    return bounds


def eval_config(bounds: list[Bound]) -> Any:
    """TFMA's EvalConfig: every metric, overall and per label, with the bounds as thresholds."""
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
    as_saved = {"signature_name": EXAMPLES_SIGNATURE, "model_type": constants.TF_GENERIC}  # without trying Keras first
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=CANDIDATE, **as_saved),
            config_pb2.ModelSpec(name=BASELINE, **as_saved, is_baseline=True),
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[features.LABEL])],
        metrics_specs=[config_pb2.MetricsSpec(metrics=configs)],
    )
