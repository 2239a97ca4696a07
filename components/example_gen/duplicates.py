"""Exact duplicates across splits: an image of `test` whose pixels are in `train` or `eval` tests nothing.

What must be known of all images to find them is kept in files: no runner has to hold it in memory.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from tfx.dsl.io import fileio

from schema.features import TEST

_PER_BUCKET: Final = 1000
"""Times the number of buckets: so many images are held in memory at a time, at 300 bytes each."""


WrittenImage: TypeAlias = tuple[str, str, str]
"""The digest of an image's pixels, in hexadecimal; its split; and its identifier."""

Segment: TypeAlias = tuple[int, str, int, int]
"""A shard's number, a file, and the bytes [start, end) of it that list WrittenImages of that shard, column by column. A
plain tuple: Beam pickles everything else."""


class Duplicate(NamedTuple):
    """An image of `test`, and the one of another split that has the same pixels."""

    shard_index: int
    image_id: str
    original_id: str


def bucket_of(digest: str, *, image_count: int) -> int:
    """Images with the same pixels share a bucket.

    Of ten million images there are 100 buckets of 100,000, of a billion 1,000 of a million: their number and what one
    holds both grow with the square root of all images.
    """
    return int(digest[:8], 16) % max(1, math.isqrt(image_count // _PER_BUCKET))


def write_segments(
    folder: str, shard_index: int, images: Iterable[WrittenImage], *, image_count: int
) -> list[tuple[int, Segment]]:
    """Write the images of one shard to a file, those of a bucket beside each other: the buckets, and where they are."""
    buckets: defaultdict[int, list[WrittenImage]] = defaultdict(list)
    for image in images:
        buckets[bucket_of(image[0], image_count=image_count)].append(image)
    if not buckets:
        return []  # TensorFlow makes no file where nothing is written
    segments: list[tuple[int, Segment]] = []
    path = os.path.join(folder, f"{shard_index:05d}")  # noqa: PTH118 - may be remote
    start = 0
    with fileio.open(path + ".part", "wb") as file:
        for bucket, of_bucket in buckets.items():
            # Three long lists are read ten times as fast as many short ones.
            listed = json.dumps(list(zip(*of_bucket, strict=True))).encode()
            file.write(listed)
            segments.append((bucket, (shard_index, path, start, start + len(listed))))
            start += len(listed)
    fileio.rename(path + ".part", path, overwrite=True)
    return segments


def find_duplicates(segments: Iterable[Segment]) -> Iterator[Duplicate]:
    """The images of `test` that another split holds too, given all segments of one bucket.

    Of several originals the one with the smallest identifier is named.
    """
    original_ids: dict[str, str] = {}
    tested: list[tuple[str, int, str]] = []
    for segment in segments:
        for digest, split, image_id in _read(segment):
            if split == TEST:
                tested.append((digest, segment[0], image_id))
            else:
                original_ids[digest] = min(image_id, original_ids.get(digest, image_id))
    for digest, shard_index, image_id in tested:
        if digest in original_ids:
            yield Duplicate(shard_index, image_id, original_ids[digest])


def _read(segment: Segment) -> Iterator[WrittenImage]:
    _, path, start, end = segment
    with fileio.open(path, "rb") as file:
        file.seek(start)
        return zip(*json.loads(file.read(end - start)), strict=True)
