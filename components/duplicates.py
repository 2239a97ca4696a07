"""Exact duplicates across splits: an image of `test` whose pixels are in `train` or `eval` tests nothing.

What must be known of all images to find them is kept in files: no runner has to hold it in memory.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

from tfx.dsl.io import fileio

from schema.features import TEST

_PER_BUCKET: Final = 1000
"""Times the number of buckets: so many images are held in memory at a time, at 300 bytes each."""


class WrittenImage(NamedTuple):
    """The digest of an image's pixels, in hexadecimal; its split, its identifier, and the number of its shard."""

    digest: str
    split: str
    image_id: str
    shard_index: int


Segment: TypeAlias = tuple[str, int, int]
"""A file, and the bytes [start, end) of it that list WrittenImages. A plain tuple: Beam pickles everything else."""


class Duplicate(NamedTuple):
    """An image of `test`, and the one of another split that has the same pixels."""

    shard_index: int
    image_id: str
    original_id: str


def bucket_of(digest: str, *, image_count: int) -> int:
    """Images with the same pixels share a bucket.

    Of ten million images there are 100 buckets of 100,000, of a billion 1,000 of a million: neither what one holds nor
    the number of segments grows with all images.
    """
    return int(digest[:8], 16) % max(1, math.isqrt(image_count // _PER_BUCKET))


def write_segments(path: str, images: Iterable[WrittenImage], *, image_count: int) -> list[tuple[int, Segment]]:
    """Write the images of one shard to a file, those of a bucket beside each other: the buckets, and where they are."""
    buckets: defaultdict[int, list[WrittenImage]] = defaultdict(list)
    for image in images:
        buckets[bucket_of(image.digest, image_count=image_count)].append(image)
    segments: list[tuple[int, Segment]] = []
    start = 0
    with fileio.open(path + ".part", "wb") as file:
        for bucket, of_bucket in buckets.items():
            listed = json.dumps(of_bucket).encode()
            file.write(listed)
            segments.append((bucket, (path, start, start + len(listed))))
            start += len(listed)
    fileio.rename(path + ".part", path, overwrite=True)
    return segments


def find_duplicates(segments: Iterable[Segment]) -> Iterator[Duplicate]:
    """The images of `test` that another split holds too, given all segments of one bucket.

    Of several originals the one with the smallest identifier is named.
    """
    images = list(chain.from_iterable(map(_read, segments)))
    original_ids: dict[str, str] = {}
    for image in images:
        if image.split != TEST:
            original_ids[image.digest] = min(image.image_id, original_ids.get(image.digest, image.image_id))
    for image in images:
        if image.split == TEST and image.digest in original_ids:
            yield Duplicate(image.shard_index, image.image_id, original_ids[image.digest])


def _read(segment: Segment) -> list[WrittenImage]:
    path, start, end = segment
    with fileio.open(path, "rb") as file:
        file.seek(start)
        return [WrittenImage(*image) for image in json.loads(file.read(end - start))]
