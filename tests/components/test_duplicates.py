"""An image of test that another split holds too is found, whatever the shards and buckets."""

from hypothesis import given
from hypothesis import strategies as st

from components.duplicates import Duplicate, bucket_of, find_duplicates


def test_the_first_original_is_named():
    shards = [
        [(b"same", "test", "z", 0), (b"other", "test", "y", 0)],
        [(b"same", "train", "b", 1), (b"same", "eval", "a", 1)],
    ]
    assert list(find_duplicates(shards)) == [Duplicate(0, "z", "a")]


def test_a_pair_within_a_split_is_left_alone():
    for split in ("train", "eval", "test"):
        assert not list(find_duplicates([[(b"same", split, image_id, 0) for image_id in "ab"]]))


@given(st.binary(min_size=16, max_size=16), st.integers(0, 10**9))
def test_buckets_hold_a_hundred_thousand_images_each(digest, image_count):
    assert 0 <= bucket_of(digest, image_count=image_count) <= image_count // 100_000
