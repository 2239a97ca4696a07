"""A folder of versions that model servers watch, here or in an object store: push, withdraw, roll back.

Servers serve the version with the highest number, and TensorFlow Serving nothing at all where that one cannot
be loaded. So nothing is ever taken away from under them to roll back: the version before is pushed again, under
a new number. The one that is left is marked as withdrawn, by its content, so that no later run pushes it again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from absl import logging
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from runtime.errors import UserError
from schema.artifacts import RECORD_FILE, SAVED_MODEL_FILE

PARTIAL_SUFFIX: Final = ".partial"
ABANDONED_AFTER_S: Final = 24 * 3600
"""Where locks do not tell whether a push is still at work: on a network's disk, of other machines."""
WITHDRAWN_FOLDER: Final = ".withdrawn"
"""Below the destination; no number, so servers ignore it. One small file per model, named by its digest."""
_VARIABLES_INDEX: Final = "variables/variables.index"

Check = Callable[[Path], None]
"""Raises when the model in a local folder must not be served."""


class PushError(UserError):
    """Nothing was pushed; the message says why."""


class NothingToReturnToError(PushError):
    """There is no earlier version that was not withdrawn."""


@dataclass(frozen=True)
class PushedVersion:
    """Where a model was pushed to, and the number it got."""

    path: str
    number: int


@dataclass(frozen=True)
class Version:
    """One version in a destination: `digest` says which model it is, whatever its number."""

    number: int
    path: str
    digest: str
    is_withdrawn: bool


@dataclass(frozen=True)
class Rollback:
    """`left` was served; `returned_to` is served now, as `pushed`."""

    left: Version
    returned_to: Version
    pushed: PushedVersion


def push(model: str, base: str, *, check: Check, keep: int | None = None) -> PushedVersion:
    """Copy the SavedModel folder `model` below `base` as its newest version; keep `keep` whole ones (None: all).

    `check` sees the model before any server can; whatever it raises is raised here, and nothing is left.
    Local folders are renamed into place, which is atomic. Object stores (`gs://`, `s3://`) have no such
    rename: there the model is checked in a local copy, then uploaded with `saved_model.pb`, without which no
    loader accepts a version, as the last file.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep {keep}: at least the version that is pushed must stay")
    fileio.makedirs(base)
    pushed = _upload(model, base, check) if _is_remote(base) else _rename_into_place(model, Path(base), check)
    if keep:
        _remove_all_but_newest(base, keep)
    return pushed


def _rename_into_place(model: str, base: Path, check: Check) -> PushedVersion:
    _remove_abandoned(base)
    with _partial_folder(base) as partial:
        copy = partial / "model"  # copy_dir makes it anew, and the lock is on the folder around it
        io_utils.copy_dir(model, str(copy))
        check(copy)
        number = _next_version(str(base), int(time.time()))
        while True:
            target = base / str(number)
            try:
                # Refused, atomically, where another push has just taken the number.
                copy.rename(target)
            except OSError:
                if not target.exists():
                    raise
                number += 1
                continue
            return PushedVersion(str(target), number)


def _upload(model: str, base: str, check: Check) -> PushedVersion:
    with tempfile.TemporaryDirectory() as local:
        io_utils.copy_dir(model, local)
        check(Path(local))
        # In microseconds, so that two pushes at once get different numbers without a lock.
        number = _next_version(base, time.time_ns() // 1000)
        target = f"{base.rstrip('/')}/{number}"
        io_utils.copy_dir(local, target, deny_regex_patterns=[rf"{SAVED_MODEL_FILE.replace('.', '[.]')}$"])
        io_utils.copy_file(f"{local}/{SAVED_MODEL_FILE}", f"{target}/{SAVED_MODEL_FILE}")
    return PushedVersion(target, number)


@contextlib.contextmanager
def _partial_folder(base: Path) -> Iterator[Path]:
    """A new folder of a name that no server takes for a version, locked; removed again unless it was renamed."""
    partial, lock = _locked_folder(base)
    try:
        yield partial
    finally:
        os.close(lock)
        shutil.rmtree(partial, ignore_errors=True)


def _locked_folder(base: Path) -> tuple[Path, int]:
    while True:
        partial = base / f".{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
        partial.mkdir()
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(partial, os.O_RDONLY)
            with contextlib.suppress(OSError):  # some network disks have no locks
                fcntl.flock(lock, fcntl.LOCK_SH)
            if partial.exists():  # no other push has just taken it for abandoned
                return partial, lock
            os.close(lock)


def _remove_abandoned(base: Path) -> None:
    """Remove what pushes that were killed have left: their locks are gone with them."""
    for partial in base.glob(f".*{PARTIAL_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            is_old = time.time() - partial.stat().st_mtime > ABANDONED_AFTER_S
            lock = os.open(partial, os.O_RDONLY)
            try:
                if is_old or _taken(lock):
                    shutil.rmtree(partial, ignore_errors=True)
            finally:
                os.close(lock)


def _taken(lock: int) -> bool:
    """Whether nobody else held it; False where the disk has no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_all_but_newest(base: str, keep: int) -> None:
    """Remove what is older than the newest `keep` whole versions, remnants of interrupted uploads included.

    One without its saved_model.pb counts for nothing, and stays where it is newer: its upload may be at work.
    """
    names = sorted(_versions(base), key=int, reverse=True)
    whole = [name for name in names if _is_whole(f"{base.rstrip('/')}/{name}")]
    if len(whole) >= keep:
        for old in names[names.index(whole[keep - 1]) + 1 :]:
            _remove_version(base, old)


def _remove_version(base: str, name: str) -> None:
    """Remove an old version: out of the servers' sight first, then from the disk.

    What is missing already is no error: an upload that was interrupted left it out, or another push removes it, too.
    """
    logging.info("Removing version %s: newer ones are kept.", name)
    if _is_remote(base):
        with contextlib.suppress(FileNotFoundError, fileio.NotFoundError):
            fileio.remove(f"{base.rstrip('/')}/{name}/{SAVED_MODEL_FILE}")
        with contextlib.suppress(FileNotFoundError, fileio.NotFoundError):
            fileio.rmtree(f"{base.rstrip('/')}/{name}")
        return
    with _partial_folder(Path(base)) as out_of_sight, contextlib.suppress(FileNotFoundError):
        (Path(base) / name).rename(out_of_sight / name)


def _next_version(base: str, now: int) -> int:
    """`now`, or one more than the newest version: what is pushed last is served, whatever the clocks say."""
    return max([now, *(int(name) + 1 for name in _versions(base))])


def versions(base: str) -> list[Version]:
    """The whole versions below `base`, newest first; one that is still being uploaded is none yet."""
    withdrawn_models = withdrawn(base)
    found = []
    for name in sorted(_versions(base), key=int, reverse=True) if fileio.exists(base) else []:
        path = f"{base.rstrip('/')}/{name}"
        if _is_whole(path):
            digest = digest_of(path)
            found.append(Version(int(name), path, digest, digest in withdrawn_models))
    return found


def rollback(base: str, *, check: Check) -> Rollback:
    """Push again the newest version that holds another model than the one served and was not withdrawn.

    The served model is marked as withdrawn once the other has passed `check`, and before it is pushed: whenever
    this is interrupted, doing it again completes it. Two at once return to the same model, under two numbers.
    """
    present = versions(base)
    if not present:
        raise NothingToReturnToError(f"{base}: there is no version here")
    served = present[0]
    earlier = [version for version in present if not version.is_withdrawn and version.digest != served.digest]
    if not earlier:
        raise NothingToReturnToError(
            f"{base}: version {served.number} is served, and there is no earlier one that was not withdrawn"
        )

    def check_and_withdraw(folder: Path) -> None:
        check(folder)
        _withdraw(base, served)

    return Rollback(served, earlier[0], push(earlier[0].path, base, check=check_and_withdraw))


def withdrawn(base: str) -> dict[str, dict[str, Any]]:
    """The models that a rollback has left: digest -> {"version", "at"}."""
    folder = f"{base.rstrip('/')}/{WITHDRAWN_FOLDER}"
    if not fileio.exists(folder):
        return {}
    found = {}
    for name in map(str, fileio.listdir(folder)):
        with fileio.open(f"{folder}/{name}") as file:
            found[name.removesuffix(".json")] = json.loads(file.read())
    return found


def reinstate(base: str, digest: str) -> None:
    """Forget that the model was withdrawn; nothing where it was not."""
    if digest in withdrawn(base):
        fileio.remove(f"{base.rstrip('/')}/{WITHDRAWN_FOLDER}/{digest}.json")


def digest_of(model: str) -> str:
    """Which model the SavedModel folder holds: BLAKE2b of what it was made of and of its variables' index.

    The index holds a checksum of every variable, so the variables themselves need not be read. What it was made of, the
    Trainer's and the Calibrator's record says: configuration, data and source. A model without one is told by its
    graph, whose bytes depend on the process that wrote it.
    """
    digest = hashlib.blake2b(digest_size=16)
    made_of = RECORD_FILE if fileio.exists(f"{model}/{RECORD_FILE}") else SAVED_MODEL_FILE
    for name in (made_of, _VARIABLES_INDEX):
        if fileio.exists(f"{model}/{name}"):
            with fileio.open(f"{model}/{name}", "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()


def _withdraw(base: str, version: Version) -> None:
    folder = f"{base.rstrip('/')}/{WITHDRAWN_FOLDER}"
    fileio.makedirs(folder)
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    with fileio.open(f"{folder}/{version.digest}.json", "w") as file:
        file.write(json.dumps({"version": version.number, "at": at}))


def _is_whole(version: str) -> bool:
    return bool(fileio.exists(f"{version}/{SAVED_MODEL_FILE}"))


def _versions(base: str) -> list[str]:
    names = [str(name).rstrip("/") for name in fileio.listdir(base)]
    return [name for name in names if name.isascii() and name.isdigit()]


def _is_remote(path: str) -> bool:
    return "://" in path
