"""What every source gives: a plan of shards, and from each shard its images and rejects. No Beam, no TFX."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from components.image_files import StoredImage
from schema.features import EVAL, TEST, TRAIN

SPLIT_OF_NAME: Final = {"train": TRAIN, "eval": EVAL, "val": EVAL, "validation": EVAL, "test": TEST}
"""What data sets call their splits, in lower case, and what we call them."""


class DataError(Exception):
    """The data cannot be used; the message names the culprit and the remedy."""


@dataclass(frozen=True)
class SourceImage:
    """One readable image with what its source says of it."""

    image_id: str
    label: str
    named_split: str | None
    is_anomaly: int | None
    stored: StoredImage
    mask: bytes | None = None
    """A PNG as `schema.features.MASK` is; None where it is unknown where the defect is."""


@dataclass(frozen=True)
class Reject:
    """One image that cannot be used."""

    image_id: str
    reason: str


@runtime_checkable  # Beam checks its elements against their declared type
class Shard(Protocol):
    """Some images of a source: small enough to send to a worker, which then reads the pixels."""

    def read(self) -> Iterator[SourceImage | Reject]: ...


@dataclass(frozen=True)
class SourcePlan:
    """All shards of a source, and what identifies its content."""

    shards: tuple[Shard, ...]
    image_count: int
    has_named_eval: bool
    fingerprint: str
    """Changes when a file is added, removed or changed (name, size, modification time)."""


def row_ranges(row_count: int, rows_per_range: int) -> Iterator[tuple[int, int]]:
    """[start, stop) pairs that cover `row_count` rows in order."""
    for start in range(0, row_count, rows_per_range):
        yield start, min(start + rows_per_range, row_count)


def fingerprint_files(folder: Path, names: Iterable[str]) -> str:
    """BLAKE2b over the name, size and modification time of files below `folder`, in the order given."""
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        digest.update(os.fsencode(f"{name}\0{_size_and_time(folder / name)}\n"))
    return digest.hexdigest()


def _size_and_time(path: Path) -> str:
    """Of the link itself where it dangles; `absent` for no file: both are rejected, with their name, when read."""
    for stat in (path.stat, path.lstat):
        try:
            status = stat()
        except OSError:
            continue
        return f"{status.st_size}\0{status.st_mtime_ns}"
    return "absent"


def require_folder(folder: Path) -> None:
    """Raises DataError unless `folder` is a folder that can be listed."""
    if not folder.exists():
        raise DataError(f"{folder}: no such folder; set data.path to the folder that holds the images")
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; set data.path to the folder that holds the images")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: permission denied; make it readable for this user")


def require_file(path: Path, *, kind: str) -> None:
    """Raises DataError unless `path` is a file that can be read; `kind` says what was expected there."""
    if not path.exists():
        raise DataError(f"{path}: no such file; set data.path to {kind}")
    if not path.is_file():
        raise DataError(f"{path}: is not a file; set data.path to {kind}")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: permission denied; make it readable for this user")
