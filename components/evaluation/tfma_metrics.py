"""METRICS as TFMA computes them: one pass over the images of a slice, and every metric from what it kept."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types

from components.evaluation.image_groups import Images
from components.evaluation.metrics import METRICS, OF_LABEL
from schema import features

_KEPT = "_images"


class ReconstructionMetric(metric_types.Metric):
    """One of METRICS by its name, or `name@label` for one that sets normal images apart from those of a label."""

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
        kept = metric_types.MetricKey(name=_KEPT, model_name=model_name)
        key = metric_types.MetricKey(name=name, model_name=model_name)
        computations.append(
            metric_types.MetricComputation(
                keys=[kept],
                preprocessors=[metric_types.FeaturePreprocessor(feature_keys=[features.LABEL])],
                combiner=_KeepImages(kept, model_name),
            )
        )
        computations.append(metric_types.DerivedMetricComputation(keys=[key], result=_Derive(key=key, kept=kept)))
    return computations


class _Derive:
    """The values of one metric: of all images of the slice, and of each label where it sets images apart."""

    def __init__(self, key: Any, kept: Any) -> None:
        self._key = key
        self._kept = kept

    def __call__(self, computed: dict[Any, Any]) -> dict[Any, float]:
        images: Images = computed[self._kept]
        name, _, label = self._key.name.partition(OF_LABEL)
        values = {self._key: METRICS[name].value(images, label or None)}
        if METRICS[name].sets_apart and not label:
            for of_label in images.anomalous:
                key = metric_types.MetricKey(name=f"{name}{OF_LABEL}{of_label}", model_name=self._key.model_name)
                values[key] = METRICS[name].value(images, of_label)
        return values


class _KeepImages(beam.CombineFn):
    """Sorts what the model says of each image into Images."""

    def __init__(self, key: Any, model_name: str) -> None:
        self._key = key
        self._model_name = model_name

    def create_accumulator(self) -> Images:
        return Images()

    def add_input(self, accumulator: Images, element: Any) -> Images:
        predictions = element.predictions
        if self._model_name and self._model_name in predictions:
            predictions = predictions[self._model_name]
        label = np.asarray(element.features[features.LABEL]).ravel()
        is_anomaly = int(np.asarray(predictions[features.IS_ANOMALY]).ravel()[0])
        accumulator.group(label[0].decode() if len(label) else "", is_anomaly).add(predictions)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Images]) -> Images:
        return sum(accumulators, Images())

    def extract_output(self, accumulator: Images) -> dict[Any, Images]:
        return {self._key: accumulator}
