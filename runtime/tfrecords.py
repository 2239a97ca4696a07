"""Reads the TFRecords and counts of ImageExampleGen's examples without Beam."""

import fnmatch
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import tensorflow as tf

from runtime.errors import UserError
from schema.artifacts import COUNTS_FILE

_BATCH_RECORDS: Final = 16
_MAX_IMAGES: Final = 256
_MAX_BYTES: Final = 2**24


def files_of(patterns: Sequence[str]) -> list[str]:
    """All files that match the patterns, sorted by name.

    Only the last part of a pattern is one: the folder's own name may contain `[`, `*` or `?`.
    """
    return sorted(file for pattern in patterns for file in _files_in(*os.path.split(pattern)))


def _files_in(folder: str, pattern: str) -> Iterator[str]:
    if not tf.io.gfile.isdir(folder):
        return
    for name in fnmatch.filter(tf.io.gfile.listdir(folder), pattern):
        yield os.path.join(folder, name)  # noqa: PTH118 - may be remote


def each_record(patterns: Sequence[str]) -> Iterator[bytes]:
    """The records of all files that match the patterns, file by file."""
    # In batches: handing a single record to Python takes ten times as long as reading it.
    for records in tf.data.TFRecordDataset(files_of(patterns)).batch(_BATCH_RECORDS).as_numpy_iterator():
        yield from records


def features_of(record: bytes) -> Mapping[str, Any]:
    """The `tf.train.Feature`s of a serialized example, by name."""
    features: Mapping[str, Any] = tf.train.Example.FromString(record).features.feature
    return features


def bytes_of(features: Mapping[str, Any], name: str) -> bytes:
    """The value of a feature that holds one string of bytes."""
    value: bytes = features[name].bytes_list.value[0]
    return value


def text_of(features: Mapping[str, Any], name: str) -> str:
    """The value of a feature that holds one text, such as an image's id; bytes that are not UTF-8 become U+FFFD."""
    return bytes_of(features, name).decode("utf-8", "replace")


def as_many_as_fit(shape: Sequence[int], *, at_most: int = _MAX_IMAGES) -> int:
    """How many float32 arrays of `shape`, decoded images or batches of them, fit in 16 MiB; at least one."""
    return max(1, min(at_most, _MAX_BYTES // (4 * math.prod(shape))))


def read_counts(examples_uri: str) -> dict[str, int]:
    """Images in each split, `left_out` anomalies of training splits, `rejected` and, if any, `excluded` images, and
    `duplicates` in `test`."""
    with tf.io.gfile.GFile(os.path.join(examples_uri, COUNTS_FILE)) as file:  # noqa: PTH118 - may be remote
        counts: dict[str, int] = json.loads(file.read())
    return counts


def count_records(patterns: Sequence[str]) -> int:
    """Images in the splits with these patterns, each `<examples>/Split-<name>/*`, from ImageExampleGen's counts."""
    count = 0
    for pattern in patterns:
        examples_uri, split = os.path.split(os.path.dirname(pattern))  # noqa: PTH120 - may be remote
        count += read_counts(examples_uri)[split.removeprefix("Split-")]
    return count


def require_count(read: int, count: int, patterns: Sequence[str]) -> None:
    """Raise UserError unless as many records were read as `counts.json` says."""
    if read != count:
        raise UserError(
            f"{', '.join(patterns)}: {read:,} records instead of the {count:,} in {COUNTS_FILE}; files are missing or "
            "were changed: delete this folder of ImageExampleGen's artifacts and run again"
        )


def spread_records(patterns: Sequence[str], at_most: int) -> tf.data.Dataset:
    """At most this many records, evenly spaced over all files that match the patterns."""
    every = -(-count_records(patterns) // at_most)
    return tf.data.TFRecordDataset(files_of(patterns)).shard(max(every, 1), 0)
