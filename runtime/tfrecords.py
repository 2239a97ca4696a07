"""TFRecords of a split, for those that do not need Beam to read them."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import tensorflow as tf

_AT_A_TIME: Final = 16
_MOST_IMAGES: Final = 256
_MOST_BYTES: Final = 2**26


def files_of(patterns: Sequence[str]) -> list[str]:
    """All files that match, by name."""
    return sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))


def each_record(patterns: Sequence[str]) -> Iterator[bytes]:
    """The records of all files that match, file by file."""
    # Some at a time: to hand over a single one costs Python ten times as much as to read it.
    for records in tf.data.TFRecordDataset(files_of(patterns)).batch(_AT_A_TIME).as_numpy_iterator():
        yield from records


def as_many_as_fit(shape: Sequence[int], *, at_most: int = _MOST_IMAGES) -> int:
    """How many decoded images, or batches of them, each `shape` of float32, are held at a time: what 64 MiB hold."""
    return max(1, min(at_most, _MOST_BYTES // (4 * math.prod(shape))))


def count_records(patterns: Sequence[str]) -> int:
    """Records in all files that match."""
    return sum(1 for _ in each_record(patterns))


def spread_records(patterns: Sequence[str], at_most: int) -> tf.data.Dataset:
    """At most so many records, in equal distances from all over the files that match."""
    every = -(-count_records(patterns) // at_most)
    return tf.data.TFRecordDataset(files_of(patterns)).shard(max(every, 1), 0)
