"""Splits depend only on the identifier."""

import hashlib

import pytest

from components.example_gen.splits import hash_fraction, split_of
from components.settings import DataSettings

SETTINGS = DataSettings(eval_fraction=0.1, test_fraction=0.2)


def split(image_id, **given):
    unknown = {"named_split": None, "has_named_eval": False, "is_anomaly": None, "settings": SETTINGS}
    return split_of(image_id, **{**unknown, **given})


def test_the_fraction_is_the_identifiers_blake2b_over_2_to_the_64():
    digest = int(hashlib.blake2b(b"digits/00042", digest_size=8).hexdigest(), 16)
    assert hash_fraction("digits/00042") == pytest.approx(digest / 2**64, abs=1e-15)


def test_known_identifiers_keep_their_split():
    known = {"a.png": "train", "b.png": "eval", "e.png": "test", "digits/00042": "train"}
    assert {image_id: split(image_id) for image_id in known} == known


def test_shares_are_as_configured():
    splits = [split(f"image-{i}") for i in range(10_000)]
    assert splits.count("test") / 10_000 == pytest.approx(0.2, abs=0.015)
    assert splits.count("eval") / 10_000 == pytest.approx(0.1, abs=0.01)


def test_a_fraction_is_an_exclusive_upper_bound():
    """A fraction equal to the hash of an identifier does not include it."""
    fraction = hash_fraction("b.png")
    only_eval = DataSettings(eval_fraction=fraction, test_fraction=0.01)
    assert split("b.png", named_split="train", settings=only_eval) == "train"
    assert split("b.png", settings=DataSettings(eval_fraction=0.01, test_fraction=fraction)) == "eval"
    halves = DataSettings(eval_fraction=fraction / 2, test_fraction=fraction / 2)
    assert split("b.png", settings=halves) == "train"


def test_anomalies_are_only_ever_tested():
    assert {split(f"{i}", is_anomaly=1, named_split="train") for i in range(50)} == {"test"}


def test_anomalies_in_training_splits_can_be_left_out():
    strict = DataSettings(training_anomalies="leave_out")
    named = {
        name: split("a.png", is_anomaly=1, named_split=name, settings=strict) for name in ("train", "eval", "test")
    }
    assert named == {"train": None, "eval": None, "test": "test"}
    assert split("a.png", is_anomaly=1, settings=strict) == "test"
    assert split("a.png", is_anomaly=0, named_split="train", settings=strict) == "train"


def test_named_splits_are_kept_and_train_is_divided_only_without_a_named_eval():
    assert {split(f"{i}", named_split="test") for i in range(50)} == {"test"}
    assert {split(f"{i}", named_split="train", has_named_eval=True) for i in range(50)} == {"train"}
    assert {split(f"{i}", named_split="train") for i in range(50)} == {"train", "eval"}
