"""Which versions lie below a model's base folder: numeric folder names, as in TensorFlow Serving."""

from dataclasses import dataclass
from pathlib import Path

from serving.contract import SAVED_MODEL_FILE


@dataclass(frozen=True)
class VersionFolder:
    """One version: its number and the folder that holds its SavedModel."""

    number: int
    path: Path


def version_folders(base: Path) -> list[VersionFolder]:
    """The version folders below `base`, newest first; [] where there is no such folder.

    A name is a version when it is decimal digits, zero-padded or not (`00000123` is 123); any other name,
    such as the one a push is written under, is ignored. Of two names for one number the longer wins.
    """
    try:
        names = [entry.name for entry in base.iterdir() if _is_version_name(entry.name) and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    by_number = {int(name): base / name for name in sorted(names, key=len)}
    return [VersionFolder(number, by_number[number]) for number in sorted(by_number, reverse=True)]


def fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """The name, size and modification time of every file below `folder`: changes when its content does."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path.relative_to(folder)), *_size_and_time(path)) for path in files)


def holds_saved_model(folder: Path) -> bool:
    """Whether `folder` has the file without which no loader accepts it."""
    return (folder / SAVED_MODEL_FILE).is_file()


def _is_version_name(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name) < 2**63


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:  # removed between the listing and now: that is a change, too
        return (-1, 0)
    return (status.st_size, status.st_mtime_ns)
