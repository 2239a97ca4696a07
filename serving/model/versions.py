"""Finds the versions in a model's base folder: subfolders with numeric names, as in TensorFlow Serving."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.errors import UsageError
from schema.artifacts import SAVED_MODEL_FILE

RUN_SUBFOLDER: Final = "serving"
"""The subfolder of a run's folder to which the Pusher writes the versions."""


class NoModelError(UsageError):
    """There is no pushed model in the given folder or, by default, in the runs."""


@dataclass(frozen=True)
class VersionFolder:
    """A version: its number and the folder of its SavedModel."""

    number: int
    path: Path


def version_folders(base: Path) -> list[VersionFolder]:
    """The version folders in `base`, newest first; [] if `base` does not exist.

    A version's name consists of decimal digits, zero-padded or not (`00000123` is 123). Other names, such as those
    of unfinished pushes, are ignored. Of two names for one number the longer wins.
    """
    try:
        names = [entry.name for entry in base.iterdir() if _is_version_name(entry.name) and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    by_number = {int(name): base / name for name in sorted(names, key=len)}
    return [VersionFolder(number, by_number[number]) for number in sorted(by_number, reverse=True)]


def fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """The name, size and modification time of every file below `folder`, to detect changes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path.relative_to(folder)), *_size_and_time(path)) for path in files)


def holds_saved_model(folder: Path) -> bool:
    """Whether `folder` holds `saved_model.pb`, which every loader needs."""
    return (folder / SAVED_MODEL_FILE).is_file()


def base_folder(folder: Path) -> Path:
    """The folder that holds the versions: `folder` itself, or its `serving/` subfolder if it is a run's folder.

    Raises NoModelError if neither holds a version.
    """
    for base in (folder / RUN_SUBFOLDER, folder):
        if version_folders(base):
            return base
    if holds_saved_model(folder):
        raise NoModelError(f"{folder} is a single version: give the folder that holds it, {folder.parent}")
    raise NoModelError(
        f"{folder}: no version folder (a number) here or in its {RUN_SUBFOLDER}/ subfolder; "
        "a run creates one when its model passes the gate"
    )


def saved_model_folder(folder: Path) -> Path:
    """The SavedModel for `folder`: itself, or the newest version in its base folder; NoModelError if there is none."""
    if holds_saved_model(folder):
        return folder
    for version in version_folders(base_folder(folder)):
        if holds_saved_model(version.path):
            return version.path
    raise NoModelError(f"{folder}: none of its versions holds {SAVED_MODEL_FILE}")


def newest_base_folder(runs: Path) -> Path:
    """The folder of versions of the most recently pushed run below `runs`; NoModelError if there is none."""
    pushed = [
        (version.path.stat().st_mtime, version.path.parent)
        for run in sorted(runs.glob("*"))
        for version in version_folders(run / RUN_SUBFOLDER)
    ]
    if not pushed:
        raise NoModelError(
            f"{runs}/: no run has pushed a model yet: start one with `autoencoder run`, or name a folder of models"
        )
    return max(pushed)[1]


def _is_version_name(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name) < 2**63


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:  # removed after it was listed, which is a change as well
        return (-1, 0)
    return (status.st_size, status.st_mtime_ns)
