"""What the gate's controls reach: the metrics of a model in the Trainer's `model_run`, beside the candidate's."""

import math
from collections import defaultdict
from typing import Any, Final, TypeAlias

import tensorflow as tf

from components.evaluation.image_groups import Images
from components.evaluation.metrics import METRICS
from runtime.tfrecords import as_many_as_fit, files_of, spread_records
from schema.features import IS_ANOMALY, LABEL
from schema.signatures import ERROR_LEVELS, EXAMPLES_SIGNATURE

FLOOR_IMAGES: Final = 10_000
"""For the model to beat, whose error is a bound."""
CONTROL_IMAGES: Final = 1000
"""Enough to refuse a model that has learnt nothing."""
_BATCH_SIZE: Final = 256
"""Of records that are not decoded."""
_UNKNOWN: Final = -1

MetricsByLabel: TypeAlias = dict[str | None, dict[str, float]]
"""Label (None: all images) -> metric -> value; a metric that could not be computed is left out."""


def metrics_of(model: str, test: str, *, at_most: int) -> MetricsByLabel:
    """All metrics of the SavedModel `model` over the split in the folder `test`, `at_most` so many images of it.

    Computed here and not by TFMA: of the same outputs, by the same functions, in a fraction of a Beam pipeline's time.
    """
    answers = tf.saved_model.load(model).signatures[EXAMPLES_SIGNATURE]
    slices: defaultdict[str, Images] = defaultdict(Images)
    at_a_time = as_many_as_fit(answers.structured_outputs[ERROR_LEVELS].shape[1:])
    for batch in spread_records([f"{test}/*"], at_most).batch(at_a_time):
        labels = tf.io.parse_example(batch, {LABEL: tf.io.FixedLenFeature([], tf.string, "")})[LABEL].numpy()
        told = {name: values.numpy() for name, values in answers(examples=batch).items()}
        for row, encoded in enumerate(labels):
            label = encoded.decode()
            of_image = {name: values[row] for name, values in told.items()}
            slices[label].group(label, int(of_image[IS_ANOMALY])).add(of_image)
    return by_label(slices)


def by_label(slices: dict[str, Images]) -> MetricsByLabel:
    """Every metric, overall and of each label; what sets images apart compares a label's with all normal ones."""
    everything = sum(slices.values(), Images())
    found: MetricsByLabel = {None: {name: metric.value(everything) for name, metric in METRICS.items()}}
    for label, images in slices.items():
        found[label] = {
            name: metric.value(everything, label) if metric.sets_apart else metric.value(images)
            for name, metric in METRICS.items()
        }
    return {label: {name: x for name, x in of_label.items() if math.isfinite(x)} for label, of_label in found.items()}


def knows_anomalies(test: str) -> bool:
    """Whether the split has images that are known to be anomalous, and such as are known to be normal."""
    feature = {IS_ANOMALY: tf.io.FixedLenFeature([], tf.int64, default_value=_UNKNOWN)}
    found: set[Any] = set()
    for batch in tf.data.TFRecordDataset(files_of([f"{test}/*"])).batch(_BATCH_SIZE):
        found.update(tf.io.parse_example(batch, feature)[IS_ANOMALY].numpy())
    return {0, 1} <= found
