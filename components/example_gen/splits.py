"""Assigns images to splits by a hash of their identifiers, the same for every run, runner and machine."""

import hashlib

from components.settings import DataSettings
from schema.features import EVAL, TEST, TRAIN

REVIEWED_TEST_FRACTION = 0.5
"""Share of the reviewed normal images that test a model: those that calibrated or trained it would flatter it."""


def hash_fraction(image_id: str) -> float:
    """A number in [0, 1) that depends only on the identifier (64 bits of BLAKE2b, RFC 7693)."""
    digest = hashlib.blake2b(image_id.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_of(
    image_id: str,
    *,
    named_split: str | None,
    has_named_eval: bool,
    is_anomaly: int | None,
    settings: DataSettings,
) -> str | None:
    """The split of one image, or None if the image is left out.

    Anomalies go to `test` or are left out. A split named by the data is kept; if the data names no `eval`, part of
    `train` becomes `eval`. Otherwise the hash decides, so adding files never moves others.
    """
    if is_anomaly == 1:
        unwanted = named_split in (TRAIN, EVAL) and settings.training_anomalies == "leave_out"
        return None if unwanted else TEST
    if named_split in (EVAL, TEST) or (named_split == TRAIN and has_named_eval):
        return named_split
    fraction = hash_fraction(image_id)
    if named_split == TRAIN:
        return EVAL if fraction < settings.eval_fraction else TRAIN
    if fraction < settings.test_fraction:
        return TEST
    return EVAL if fraction < settings.test_fraction + settings.eval_fraction else TRAIN


def split_of_reviewed(image_id: str, *, named_split: str | None, is_anomaly: int | None, settings: DataSettings) -> str:
    """The split of an image that a person decided about.

    Defects test the model. Normal images stay in the split that the manifest names, which is where the model had them;
    of all others, half test the model, and half calibrate or train it, as the settings say.
    """
    if is_anomaly == 1:
        return TEST
    if named_split is not None:
        return named_split
    if hash_fraction(image_id) < REVIEWED_TEST_FRACTION:
        return TEST
    return TRAIN if settings.reviewed_normals == "train" else EVAL
