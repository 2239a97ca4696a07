"""Which split an image belongs to: a hash of its identifier, the same for every run, runner and machine."""

import hashlib

from components.settings import DataSettings
from schema.features import EVAL, TEST, TRAIN


def hash_fraction(image_id: str) -> float:
    """A number in [0, 1) that depends on nothing but the identifier (64 bits of BLAKE2b, RFC 7693)."""
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
    """The split of one image; None: it is left out.

    Anomalies always go to `test`, if anywhere. A split that the data name is kept; if they name no `eval`, it is taken
    out of `train`. Otherwise the hash decides, so adding files moves no other file.
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
