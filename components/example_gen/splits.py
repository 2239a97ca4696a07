"""Assigns images to splits by a hash of their identifiers, the same for every run, runner and machine."""

import hashlib

from components.settings import DataSettings
from schema.features import EVAL, TEST, TRAIN


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
