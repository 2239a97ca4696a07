"""Which versions lie below a model's base folder: numeric folder names, as in TensorFlow Serving."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.errors import BAD_USAGE, UserError
from schema.artifacts import SAVED_MODEL_FILE

RUN_SUBFOLDER: Final = "serving"
"""Where a run's Pusher puts the versions, below the run's own folder."""


class NoModelError(UserError, FileNotFoundError):
    """A folder that was given, or the runs by default, hold no pushed model."""

    exit_code = BAD_USAGE


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


def base_folder(folder: Path) -> Path:
    """The folder that holds the versions: `folder` itself, or `serving/` in it where `folder` is a run's.

    Raises FileNotFoundError where neither holds a version.
    """
    for base in (folder / RUN_SUBFOLDER, folder):
        if version_folders(base):
            return base
    if holds_saved_model(folder):
        raise NoModelError(f"{folder} is one version: give the folder that holds it, {folder.parent}")
    raise NoModelError(f"{folder}: no version folder (a number) here or in {RUN_SUBFOLDER}/ below it")


def saved_model_folder(folder: Path) -> Path:
    """The SavedModel meant by `folder`: itself, or the newest version of its base; else FileNotFoundError."""
    if holds_saved_model(folder):
        return folder
    for version in version_folders(base_folder(folder)):
        if holds_saved_model(version.path):
            return version.path
    raise NoModelError(f"{folder}: no version in it holds {SAVED_MODEL_FILE}")


def newest_base_folder(runs: Path) -> Path:
    """The versions of the run below `runs` that was pushed last; FileNotFoundError where none was."""
    pushed = [
        (version.path.stat().st_mtime, version.path.parent)
        for run in sorted(runs.glob("*"))
        for version in version_folders(run / RUN_SUBFOLDER)
    ]
    if not pushed:
        raise NoModelError(f"{runs}/: no run has pushed a model yet")
    return max(pushed)[1]


def _is_version_name(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name) < 2**63


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:  # removed between the listing and now: that is a change, too
        return (-1, 0)
    return (status.st_size, status.st_mtime_ns)
