"""Images of test that are also in another split are found for any shards and buckets."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from components.example_gen.duplicates import Duplicate, bucket_of, find_duplicates, write_segments


def _found(folder, *shards, image_count=1):
    """The duplicates in `shards`, each a list of (digest, split, identifier)."""
    buckets = {}
    for index, images in enumerate(shards):
        for bucket, segment in write_segments(str(folder), index, images, image_count=image_count):
            buckets.setdefault(bucket, []).append(segment)
    return sorted(itertools.chain.from_iterable(map(find_duplicates, buckets.values())))


def test_the_original_with_the_smallest_identifier_is_returned(tmp_path):
    assert _found(
        tmp_path,
        [("00aa00aa", "test", "z"), ("11bb11bb", "test", "y")],
        [("00aa00aa", "train", "b"), ("00aa00aa", "eval", "a")],
    ) == [Duplicate(0, "z", "a")]


def test_duplicates_within_a_split_are_kept(tmp_path):
    for split in ("train", "eval", "test"):
        assert not _found(tmp_path, [("00aa00aa", split, image_id) for image_id in "ab"])


def test_many_buckets_find_the_same_as_one(tmp_path):
    digests = [f"{number * 2654435761 % 2**32:08x}" for number in range(300)]
    train = [(digest, "train", f"Größe/{digest}.png") for digest in digests[:200]]
    test = [(digest, "test", f"t\udcff{digest}") for digest in digests[100:]]
    expected = sorted(Duplicate(1, f"t\udcff{digest}", f"Größe/{digest}.png") for digest in digests[100:200])
    for image_count in (300, 5_000_000):
        assert _found(tmp_path, train, test, image_count=image_count) == expected


@given(st.binary(min_size=16, max_size=16), st.integers(0, 10**9))
def test_a_bucket_has_a_thousand_images_per_bucket(digest, image_count):
    assert 1000 * bucket_of(digest.hex(), image_count=image_count) ** 2 <= image_count
