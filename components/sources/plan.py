"""What every source gives: a plan of shards, and from each shard its images and rejects. No Beam, no TFX."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar, runtime_checkable

from images.stored import StoredImage
from runtime.errors import UsageError
from runtime.object_store import AnyPath, ObjectStatus, RemotePath
from schema.features import EVAL, TEST, TRAIN

SPLIT_OF_NAME: Final = {"train": TRAIN, "eval": EVAL, "val": EVAL, "validation": EVAL, "test": TEST}
"""What data sets call their splits, in lower case, and what we call them."""


class DataError(UsageError):
    """The data cannot be used; the message names the culprit and the remedy."""


class SourceImage(NamedTuple):
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
    passed_over: str = ""
    """Files that are no images by their suffix, such as `50 .heic, 1 .txt`."""


BATCH_BYTES: Final = 1 << 20
"""Arrays are read, and their images described and compressed, about so much at a time."""


def rows_per_batch(row_bytes: int) -> int:
    """As many rows as make a batch; one if a row is larger than that."""
    return max(1, BATCH_BYTES // row_bytes)


_FEW: Final = 16
"""More objects than these are asked for by one listing instead of one by one."""
_THREADS: Final = 4
_THREADS_REMOTE: Final = 16
"""An object store answers late, but many at a time."""
_FILES_AHEAD: Final = 64

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def read_in_threads(read: Callable[[_Item], _Result], items: Sequence[_Item], folder: AnyPath) -> Iterator[_Result]:
    """`read` of each item below `folder`, in order; few are decoded at a time, and few results wait."""
    with ThreadPoolExecutor(_THREADS if isinstance(folder, Path) else _THREADS_REMOTE) as pool:
        for start in range(0, len(items), _FILES_AHEAD):
            yield from pool.map(read, items[start : start + _FILES_AHEAD])


def row_ranges(row_count: int, rows_per_range: int) -> Iterator[tuple[int, int]]:
    """[start, stop) pairs that cover `row_count` rows in order."""
    for start in range(0, row_count, rows_per_range):
        yield start, min(start + rows_per_range, row_count)


def fingerprint_files(folder: AnyPath, names: Iterable[str]) -> str:
    """BLAKE2b over the name, size and modification time of files below `folder`, in the order given."""
    names = list(names)
    listed = dict(folder.files_below()) if isinstance(folder, RemotePath) and len(names) > _FEW else None
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        status = _status(folder / name) if listed is None else listed.get(name)
        size_and_time = f"{status.st_size}\0{status.st_mtime_ns}" if status else "absent"
        digest.update(os.fsencode(f"{name}\0{size_and_time}\n"))
    return digest.hexdigest()


def _status(path: AnyPath) -> os.stat_result | ObjectStatus | None:
    """Of the link itself where it dangles; None for no file: both are rejected, with their name, when read."""
    for stat in (path.stat, path.lstat):
        try:
            return stat()
        except OSError:
            continue
    return None


LINKED_OUTSIDE: Final = "is a link to outside of the data folder; copy the file there, or set data.follow_links=true"


def folder_of_links(folder: AnyPath, *, follow_links: bool) -> str | None:
    """Where links may lead: `folder` with its own links resolved; None for anywhere. An object store has no links."""
    return os.path.realpath(folder) if isinstance(folder, Path) and not follow_links else None


def is_linked_outside(path: AnyPath, folder: str | None) -> bool:
    """Whether `path`, its links resolved, lies outside of what `folder_of_links` gave; a link that loops does not."""
    return folder is not None and os.path.commonpath([folder, os.path.realpath(str(path))]) != folder


def require_inside(path: AnyPath, folder: str | None) -> None:
    """Raises DataError where links lead `path` outside of what `folder_of_links` gave."""
    if is_linked_outside(path, folder):
        raise DataError(f"{path}: {LINKED_OUTSIDE}")


def require_folder(folder: AnyPath) -> None:
    """Raises DataError unless `folder` is a folder that can be listed."""
    if not folder.exists():
        raise DataError(f"{folder}: no such folder; set data.path to the folder that holds the images")
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; set data.path to the folder that holds the images")
    if isinstance(folder, Path) and not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: permission denied; make it readable for this user")


def require_file(path: AnyPath, *, kind: str) -> None:
    """Raises DataError unless `path` is a file that can be read; `kind` says what was expected there."""
    if not path.exists():
        raise DataError(f"{path}: no such file; set data.path to {kind}")
    if not path.is_file():
        raise DataError(f"{path}: is not a file; set data.path to {kind}")
    if isinstance(path, Path) and not os.access(path, os.R_OK):
        raise DataError(f"{path}: permission denied; make it readable for this user")
