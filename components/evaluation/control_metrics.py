"""Metrics of the control models: PCA, and models that learnt nothing, which the gate must refuse."""

import math
from collections import defaultdict
from typing import Any, Final, TypeAlias

import tensorflow as tf

from components.evaluation.accumulators import SliceImages
from components.evaluation.metrics import METRICS
from runtime.tfrecords import as_many_as_fit, spread_records
from schema.features import IS_ANOMALY, LABEL
from schema.signatures import ERROR_LEVELS

FLOOR_IMAGES: Final = 10_000
"""Images that PCA and nearest neighbours are measured on, whose numbers are bounds."""
CONTROL_IMAGES: Final = 1000
"""Images for a model that has learnt nothing: a sample is enough to refuse it."""

MetricsByLabel: TypeAlias = dict[str | None, dict[str, float]]
"""Label (None: all images) -> metric -> value; a metric that could not be computed is left out."""


def metrics_of(signature: Any, test: str, *, at_most: int) -> MetricsByLabel:
    """All metrics of a model, by its signature for tf.Examples, on at most `at_most` images of the split in `test`.

    Uses the same outputs and functions as TFMA does, in a fraction of a Beam pipeline's time.
    """
    slices: defaultdict[str, SliceImages] = defaultdict(SliceImages)
    at_a_time = as_many_as_fit(signature.structured_outputs[ERROR_LEVELS].shape[1:])
    for batch in spread_records([f"{test}/*"], at_most).batch(at_a_time):
        labels = tf.io.parse_example(batch, {LABEL: tf.io.FixedLenFeature([], tf.string, "")})[LABEL].numpy()
        outputs = {name: values.numpy() for name, values in signature(examples=batch).items()}
        for row, encoded in enumerate(labels):
            label = encoded.decode()
            of_image = {name: values[row] for name, values in outputs.items()}
            slices[label].group(label, int(of_image[IS_ANOMALY])).add(of_image)
    return by_label(slices)


def by_label(slices: dict[str, SliceImages]) -> MetricsByLabel:
    """Every metric, overall and of each label; detection metrics compare a label's anomalies with all normal images."""
    everything = sum(slices.values(), SliceImages())
    found: MetricsByLabel = {None: {name: metric.value(everything) for name, metric in METRICS.items()}}
    for label, images in slices.items():
        found[label] = {
            name: metric.value(everything, label) if metric.needs_anomalies else metric.value(images)
            for name, metric in METRICS.items()
        }
    return {label: {name: x for name, x in of_label.items() if math.isfinite(x)} for label, of_label in found.items()}
