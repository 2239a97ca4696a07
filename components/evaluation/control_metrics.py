"""Metrics of the control models: PCA, and models that learnt nothing, which the gate must refuse."""

import math
from collections import defaultdict
from typing import Any, Final, TypeAlias

import tensorflow as tf

from components.evaluation.accumulators import SliceImages
from components.evaluation.bare_examples import without_identifier
from components.evaluation.metrics import METRICS
from components.evaluation.synthetic_auroc import count_known, most_images
from runtime.tfrecords import as_many_as_fit, files_of
from schema.features import IS_ANOMALY, LABEL, UNKNOWN
from schema.signatures import ERROR_LEVELS

FLOOR_IMAGES: Final = 10_000
"""Images that PCA and nearest neighbours are measured on, whose numbers are bounds."""
CONTROL_IMAGES: Final = 1000
"""Images for a model that has learnt nothing, fewer if they are large: a sample is enough to refuse it."""

MetricsByLabel: TypeAlias = dict[str | None, dict[str, float]]
"""Label (None: all images) -> metric -> value; a metric that could not be computed is left out."""


def control_metrics_of(signature: Any, test: str) -> MetricsByLabel:
    """All metrics of a model that has learnt nothing, by its signature for tf.Examples, on a sample of the split.

    Uses the same outputs and functions as TFMA does, in a fraction of a Beam pipeline's time.
    """
    at_most = most_images(*signature.structured_outputs[ERROR_LEVELS].shape[1:], at_most=CONTROL_IMAGES)
    return _metrics_of(signature, _sampled(test, at_most))


def floor_metrics_of(signature: Any, test: str) -> MetricsByLabel:
    """The same of a simple model, on up to 10,000 images, without what noise does to it: no bound compares that."""
    return _metrics_of(signature, _sampled(test, FLOOR_IMAGES), is_probed=False)


def _sampled(test: str, at_most: int) -> tf.data.Dataset:
    """At most this many records of the split, evenly spaced among the anomalous and among the other ones.

    Of each kind there are all, or at least a quarter of `at_most`, so that neither is lost if it is rare.
    """
    records, known = tf.data.TFRecordDataset(files_of([f"{test}/*"])), count_known(test)
    others, anomalous = known[0] + known[UNKNOWN], known[1]
    if others + anomalous <= at_most:
        return records
    most_anomalous = min(anomalous, max(at_most // 2, at_most - others))
    spec = {IS_ANOMALY: tf.io.FixedLenFeature([], tf.int64, UNKNOWN)}

    def evenly(count: int, most: int, *, is_anomaly: bool) -> tf.data.Dataset:
        own = records.filter(lambda record: (tf.io.parse_single_example(record, spec)[IS_ANOMALY] == 1) == is_anomaly)
        return own.shard(max(1, -(-count // max(1, most))), 0)

    normal = evenly(others, at_most - most_anomalous, is_anomaly=False)
    return normal.concatenate(evenly(anomalous, most_anomalous, is_anomaly=True))


def _metrics_of(signature: Any, records: tf.data.Dataset, *, is_probed: bool = True) -> MetricsByLabel:
    slices: defaultdict[str, SliceImages] = defaultdict(SliceImages)
    at_a_time = as_many_as_fit(signature.structured_outputs[ERROR_LEVELS].shape[1:])
    for batch in records.batch(at_a_time):
        if not is_probed:
            batch = tf.constant([without_identifier(record) for record in batch.numpy()])
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
