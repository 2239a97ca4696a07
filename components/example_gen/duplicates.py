"""Finds images of `test` whose pixels are also in `train` or `eval`: they would make the metrics too good.

The digests of all images are kept in files, so that no Beam runner has to hold them in memory.
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
"""A bucket has this many images times the number of buckets; it is held in memory, at 300 bytes per image."""


WrittenImage: TypeAlias = tuple[str, str, str]
"""The digest of an image's pixels in hexadecimal, its split, and its identifier."""

Segment: TypeAlias = tuple[int, str, int, int]
"""A shard's number, a file, and the bytes [start, end) of it that list WrittenImages of that shard, column by column. A
plain tuple, because Beam pickles everything else."""


class Duplicate(NamedTuple):
    """An image of `test`, and an image of another split with the same pixels."""

    shard_index: int
    image_id: str
    original_id: str


def bucket_of(digest: str, *, image_count: int) -> int:
    """The bucket of an image; images with the same pixels share one.

    The number of buckets and their size both grow with the square root of the number of images: 100 buckets of 100,000
    for ten million images, 1,000 of a million for a billion.
    """
    return int(digest[:8], 16) % max(1, math.isqrt(image_count // _PER_BUCKET))


def write_segments(
    folder: str, shard_index: int, images: Iterable[WrittenImage], *, image_count: int
) -> list[tuple[int, Segment]]:
    """Write the images of one shard to a file, grouped by bucket; returns (bucket, segment of the file) pairs."""
    buckets: defaultdict[int, list[WrittenImage]] = defaultdict(list)
    for image in images:
        buckets[bucket_of(image[0], image_count=image_count)].append(image)
    if not buckets:
        return []  # TensorFlow creates no file if nothing is written
    segments: list[tuple[int, Segment]] = []
    path = os.path.join(folder, f"{shard_index:05d}")  # noqa: PTH118 - may be remote
    start = 0
    with fileio.open(path + ".part", "wb") as file:
        for bucket, of_bucket in buckets.items():
            # Three long lists are parsed ten times as fast as many short ones.
            listed = json.dumps(list(zip(*of_bucket, strict=True))).encode()
            file.write(listed)
            segments.append((bucket, (shard_index, path, start, start + len(listed))))
            start += len(listed)
    fileio.rename(path + ".part", path, overwrite=True)
    return segments


def find_duplicates(segments: Iterable[Segment]) -> Iterator[Duplicate]:
    """The images of `test` that are also in another split, given all segments of one bucket.

    If there are several originals, returns the one with the smallest identifier.
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
