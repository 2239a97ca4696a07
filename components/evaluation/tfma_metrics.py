"""Adapts METRICS to TFMA: one pass accumulates the images of a slice, and every metric is derived from that."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types

from components.evaluation.accumulators import SliceImages
from components.evaluation.metrics import LABEL_SEPARATOR, METRICS
from schema import features

_ACCUMULATED = "_images"


class ReconstructionMetric(metric_types.Metric):
    """A metric by its name in METRICS, or by `name@label` for the detection of one label's anomalies."""

    def __init__(self, name: str) -> None:
        super().__init__(_computations, name=name)


metric_types.register_metric(ReconstructionMetric)


def _computations(
    name: str,
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    sub_keys: list[Any] | None = None,
    example_weighted: bool = False,
) -> list[Any]:
    computations: list[Any] = []
    for model_name in model_names or [""]:
        accumulated = metric_types.MetricKey(name=_ACCUMULATED, model_name=model_name)
        key = metric_types.MetricKey(name=name, model_name=model_name)
        computations.append(
            metric_types.MetricComputation(
                keys=[accumulated],
                preprocessors=[metric_types.FeaturePreprocessor(feature_keys=[features.LABEL])],
                combiner=_AccumulateImages(accumulated, model_name),
            )
        )
        computations.append(
            metric_types.DerivedMetricComputation(keys=[key], result=_Derive(key=key, accumulated=accumulated))
        )
    return computations


class _Derive:
    """Computes one metric: over the whole slice and, for detection metrics, for each label."""

    def __init__(self, key: Any, accumulated: Any) -> None:
        self._key = key
        self._accumulated = accumulated

    def __call__(self, computed: dict[Any, Any]) -> dict[Any, float]:
        images: SliceImages = computed[self._accumulated]
        name, _, label = self._key.name.partition(LABEL_SEPARATOR)
        values = {self._key: METRICS[name].value(images, label or None)}
        if METRICS[name].needs_anomalies and not label:
            for of_label in images.anomalous:
                key = metric_types.MetricKey(name=f"{name}{LABEL_SEPARATOR}{of_label}", model_name=self._key.model_name)
                values[key] = METRICS[name].value(images, of_label)
        return values


class _AccumulateImages(beam.CombineFn):
    """Accumulates the model's outputs into SliceImages."""

    def __init__(self, key: Any, model_name: str) -> None:
        self._key = key
        self._model_name = model_name

    def create_accumulator(self) -> SliceImages:
        return SliceImages()

    def add_input(self, accumulator: SliceImages, element: Any) -> SliceImages:
        predictions = element.predictions
        if self._model_name and self._model_name in predictions:
            predictions = predictions[self._model_name]
        label = np.asarray(element.features[features.LABEL]).ravel()
        is_anomaly = int(np.asarray(predictions[features.IS_ANOMALY]).ravel()[0])
        accumulator.group(label[0].decode() if len(label) else "", is_anomaly).add(predictions)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[SliceImages]) -> SliceImages:
        return sum(accumulators, SliceImages())

    def extract_output(self, accumulator: SliceImages) -> dict[Any, SliceImages]:
        return {self._key: accumulator}
