"""Writes the parity file: test images with their errors, which the pushed model must reproduce."""

from collections.abc import Iterator
from typing import Any, Final

import tensorflow as tf

from components.evaluation.bare_examples import bared
from runtime.tfrecords import features_of, files_of
from schema import features
from schema.signatures import ERROR

MAX_IMAGES: Final = 100
MAX_BYTES: Final = 64 * 1024 * 1024
_BATCH_SIZE = 10


def write_parity_file(signature: Any, examples: str, target: str) -> int:
    """Write the first images of the split in the folder `examples`, with their errors by a model, to `target`.

    Each image is a tf.Example with its bytes, its identifier and its error from the model's `signature` for examples,
    which the Evaluator's metrics use too. Returns the number of images: 100, or fewer if they are large.
    """
    count = 0
    with tf.io.TFRecordWriter(target) as writer:
        for batch in _batches(examples):
            errors = signature(examples=tf.constant([bared(record) for record in batch]))[ERROR].numpy()
            for serialized, error in zip(batch, errors, strict=True):
                writer.write(_with_error(serialized, float(error)).SerializeToString())
                count += 1
    return count


def _batches(folder: str) -> Iterator[list[bytes]]:
    left_bytes = MAX_BYTES
    records = tf.data.TFRecordDataset(files_of([f"{folder}/*"])).take(MAX_IMAGES)
    for batch in records.batch(_BATCH_SIZE).as_numpy_iterator():
        yield list(batch)
        left_bytes -= sum(map(len, batch))
        if left_bytes <= 0:
            return


def _with_error(serialized: bytes, error: float) -> Any:
    known = features_of(serialized)
    kept = {name: known[name] for name in (features.IMAGE, features.IMAGE_ID)}
    kept[ERROR] = tf.train.Feature(float_list=tf.train.FloatList(value=[error]))
    return tf.train.Example(features=tf.train.Features(feature=kept))
