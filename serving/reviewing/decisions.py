"""A decision about an image, and what it may contain."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from runtime.errors import UsageError

Choice = Literal["normal", "defect", "unsure"]
NORMAL, DEFECT, UNSURE = "normal", "defect", "unsure"
CHOICES: Final = (NORMAL, DEFECT, UNSURE)
LONGEST_NAME: Final = 64
FORMULA_STARTS: Final = ("=", "+", "-", "@")
"""Spreadsheets run a cell that begins so."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The image that a decision is about."""

    digest: str
    """SHA-256 of the file's bytes in hexadecimal: the same image from two places is one."""
    name: str
    """Its identifier in the data, or its path."""
    label: str = ""
    """What the data or the model's normal images call it; the label of a normal image."""
    split: str = ""
    """`train` or `eval` for an image that the model was trained or calibrated with, otherwise empty."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision, as a line of the history."""

    number: int
    time: str
    """UTC, ISO 8601."""
    reviewer: str
    digest: str
    name: str
    decision: Choice
    label: str
    """The class of a defect, otherwise empty."""
    normal_label: str
    split: str
    """Both as in `Subject`."""
    path: str
    """The copy of the image, relative to the folder of the manifest; `mask` likewise, or empty."""
    mask: str

    @property
    def verdict(self) -> tuple[str, str]:
        """What two reviewers can disagree about."""
        return (self.decision, self.label)


def is_contested(decisions: Sequence[Decision]) -> bool:
    """Whether reviewers disagree about an image."""
    return len({one.verdict for one in decisions}) > 1


def digest_of(content: bytes) -> str:
    """`Subject.digest` of a file's bytes."""
    return hashlib.sha256(content).hexdigest()


def checked_name(what: str, name: str) -> str:
    """The name of a reviewer or class without spaces around it; raises UsageError for one that a table cannot hold."""
    name = name.strip() if isinstance(name, str) else ""
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or name.startswith(FORMULA_STARTS):
        starts = " ".join(FORMULA_STARTS)
        raise UsageError(f"{what} {name!r}: give 1 to {LONGEST_NAME} printable characters, the first none of {starts}")
    return name
