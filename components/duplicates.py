"""Exact duplicates across splits: an image of `test` whose pixels are in `train` or `eval` tests nothing."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from schema.features import TEST

_IMAGES_PER_BUCKET: Final = 100_000
"""So many are held in memory at a time, at some hundred bytes each."""


WrittenImage: TypeAlias = tuple[bytes, str, str, int]
"""What must be known of every image to find its duplicates: the digest of its pixels, its split, its identifier, and
the number of its shard. A plain tuple: Beam encodes it as such, and pickles everything else."""


class Duplicate(NamedTuple):
    """An image of `test`, and the one of another split that has the same pixels."""

    shard_index: int
    image_id: str
    original_id: str


def bucket_of(pixel_digest: bytes, *, image_count: int) -> int:
    """Images with the same pixels share a bucket; buckets hold about 100,000 of `image_count` images each."""
    return int.from_bytes(pixel_digest[:4], "big") % (1 + image_count // _IMAGES_PER_BUCKET)


def find_duplicates(shards: Iterable[list[WrittenImage]]) -> Iterator[Duplicate]:
    """The images of `test` that another split holds too, given all images of one bucket.

    `shards` is iterated twice. Of several originals the one with the smallest identifier is named.
    """
    original_ids: dict[bytes, str] = {}
    for images in shards:
        for digest, split, image_id, _ in images:
            if split != TEST:
                original_ids[digest] = min(image_id, original_ids.get(digest, image_id))
    for images in shards:
        for digest, split, image_id, shard_index in images:
            if split == TEST and digest in original_ids:
                yield Duplicate(shard_index, image_id, original_ids[digest])
