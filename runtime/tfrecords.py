"""Reads the TFRecords of a split without Beam."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import tensorflow as tf

_AT_A_TIME: Final = 16
_MOST_IMAGES: Final = 256
_MOST_BYTES: Final = 2**26


def files_of(patterns: Sequence[str]) -> list[str]:
    """All matching files, sorted by name."""
    return sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))


def each_record(patterns: Sequence[str]) -> Iterator[bytes]:
    """The records of all matching files, file by file."""
    # In batches: passing a single record to Python takes ten times as long as reading it.
    for records in tf.data.TFRecordDataset(files_of(patterns)).batch(_AT_A_TIME).as_numpy_iterator():
        yield from records


def as_many_as_fit(shape: Sequence[int], *, at_most: int = _MOST_IMAGES) -> int:
    """How many float32 arrays of this shape, such as decoded images or batches, fit into 64 MiB; at least 1."""
    return max(1, min(at_most, _MOST_BYTES // (4 * math.prod(shape))))


def count_records(patterns: Sequence[str]) -> int:
    """Number of records in all matching files."""
    return sum(1 for _ in each_record(patterns))


def spread_records(patterns: Sequence[str], at_most: int) -> tf.data.Dataset:
    """At most `at_most` records, evenly spaced over all matching files."""
    every = -(-count_records(patterns) // at_most)
    return tf.data.TFRecordDataset(files_of(patterns)).shard(max(every, 1), 0)
