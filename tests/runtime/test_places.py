"""A bucket's name follows the stores' rules; a path is never a pattern."""

import pytest

from runtime.places import bucket_problem, pattern_problem

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
# https://cloud.google.com/storage/docs/buckets#naming
VALID = ("abc", "my-bucket", "my.bucket.1", "0a0", "a" * 63)
INVALID = ("", "ab", "a" * 64, "My-bucket", "-abc", "abc-", ".abc", "a..b", "192.168.5.4", "a b", "a*b", "ü-bucket")


@pytest.mark.parametrize("scheme", ["s3", "minio", "gs"])
def test_names_that_every_store_accepts_or_refuses(scheme):
    assert [name for name in VALID if bucket_problem(f"{scheme}://{name}/a/b")] == []
    assert [name for name in INVALID if not bucket_problem(f"{scheme}://{name}/a/b")] == []


@pytest.mark.parametrize("name", ["xn--abc", "sthree-abc", "abc-s3alias", "abc--ol-s3", "a_b_c"])
def test_names_that_amazon_reserves(name):
    assert repr(name) in bucket_problem(f"s3://{name}")


def test_googles_own_rules():
    assert bucket_problem("gs://a_b_c") == ""
    assert bucket_problem(f"gs://{'a' * 60}.{'b' * 60}") == ""
    for name in ("google", "goog-a", "my-google-data", f"{'a' * 64}.b"):
        assert repr(name) in bucket_problem(f"gs://{name}")


def test_a_local_path_has_no_bucket():
    assert bucket_problem("/data/A_B") == ""


@pytest.mark.parametrize(("folder", "named"), [("/a/[1]", "["), ("/a*", "*"), ("a?b[", "? and ["), ("a\\b", "\\")])
def test_characters_of_patterns_are_named(folder, named):
    assert f"contains {named}, which TensorFlow reads as a pattern" in pattern_problem(folder)
    assert pattern_problem("/a b/{c}/ü#%&'") == ""
