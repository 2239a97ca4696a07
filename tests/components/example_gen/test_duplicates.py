"""An image of test that another split holds too is found, whatever the shards and buckets."""

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


def test_the_first_original_is_named(tmp_path):
    assert _found(
        tmp_path,
        [("00aa00aa", "test", "z"), ("11bb11bb", "test", "y")],
        [("00aa00aa", "train", "b"), ("00aa00aa", "eval", "a")],
    ) == [Duplicate(0, "z", "a")]


def test_a_pair_within_a_split_is_left_alone(tmp_path):
    for split in ("train", "eval", "test"):
        assert not _found(tmp_path, [("00aa00aa", split, image_id) for image_id in "ab"])


def test_many_buckets_find_what_one_finds(tmp_path):
    digests = [f"{number * 2654435761 % 2**32:08x}" for number in range(300)]
    train = [(digest, "train", f"Größe/{digest}.png") for digest in digests[:200]]
    test = [(digest, "test", f"t\udcff{digest}") for digest in digests[100:]]
    expected = sorted(Duplicate(1, f"t\udcff{digest}", f"Größe/{digest}.png") for digest in digests[100:200])
    for image_count in (300, 5_000_000):
        assert _found(tmp_path, train, test, image_count=image_count) == expected


@given(st.binary(min_size=16, max_size=16), st.integers(0, 10**9))
def test_buckets_are_a_thousandth_of_what_they_hold(digest, image_count):
    assert 1000 * bucket_of(digest.hex(), image_count=image_count) ** 2 <= image_count
