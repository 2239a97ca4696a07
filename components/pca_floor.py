"""The floor under every model: the error of PCA with as many numbers, on the same test images."""

from typing import Any, Final

import tensorflow as tf

from components.image_groups import Images
from components.metrics import METRICS
from schema.features import IS_ANOMALY
from schema.records import files_of, spread_records
from schema.signatures import ERROR, EXAMPLES_SIGNATURE

_IMAGES: Final = 10_000
_BATCH_SIZE: Final = 256
_UNKNOWN: Final = -1


def pca_error(control: str, test: str) -> float:
    """`mean_error` of the SavedModel `control` over the split in the folder `test`, at most 10,000 images of it."""
    answers = tf.saved_model.load(control).signatures[EXAMPLES_SIGNATURE]
    images = Images()
    for batch in spread_records([f"{test}/*"], _IMAGES).batch(_BATCH_SIZE):
        told = answers(examples=batch)
        for error, is_anomaly in zip(told[ERROR].numpy(), told[IS_ANOMALY].numpy(), strict=True):
            images.group("", is_anomaly).add({ERROR: error})
    return METRICS["mean_error"].value(images)


def knows_anomalies(test: str) -> bool:
    """Whether the split has images that are known to be anomalous, and such as are known to be normal."""
    feature = {IS_ANOMALY: tf.io.FixedLenFeature([], tf.int64, default_value=_UNKNOWN)}
    found: set[Any] = set()
    for batch in tf.data.TFRecordDataset(files_of([f"{test}/*"])).batch(_BATCH_SIZE):
        found.update(tf.io.parse_example(batch, feature)[IS_ANOMALY].numpy())
    return {0, 1} <= found
