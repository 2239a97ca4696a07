"""Pushes, withdraws and rolls back versions in a folder or object store that model servers watch.

Servers serve the version with the highest number; if it cannot be loaded, TensorFlow Serving serves none. A rollback
therefore removes nothing: it pushes the previous model again under a new number. The replaced model is marked as
withdrawn, by its content, so that no later run pushes it again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from absl import logging
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from runtime.errors import UserError
from runtime.whole_files import write_whole
from schema.artifacts import RECORD_FILE, SAVED_MODEL_FILE

PARTIAL_SUFFIX: Final = ".partial"
ABANDONED_AFTER_S: Final = 24 * 3600
"""Age at which a partial push counts as abandoned if locks cannot show it, as on network file systems."""
WITHDRAWN_FOLDER: Final = ".withdrawn"
"""In the destination, with one small file per model, named by its digest; not a number, so servers ignore it."""
_RECORD_NAME: Final = re.compile(r"([0-9a-f]{32})[.]json")
_VARIABLES_INDEX: Final = "variables/variables.index"

Check = Callable[[Path], None]
"""Raises an error if the model in a local folder must not be served."""


class PushError(UserError):
    """Nothing was pushed; the message is the reason."""


@dataclass(frozen=True)
class PushedVersion:
    """The path and number of a version that was pushed."""

    path: str
    number: int


@dataclass(frozen=True)
class Version:
    """One version in a destination; `digest` identifies its model independently of the number."""

    number: int
    path: str
    digest: str
    is_withdrawn: bool


@dataclass(frozen=True)
class Withdrawal:
    """That a rollback withdrew a model; `text` says which version and when, or that the record of it is damaged."""

    text: str
    is_damaged: bool


@dataclass(frozen=True)
class Rollback:
    """`left` was served before; now `returned_to` is served as `pushed`."""

    left: Version
    returned_to: Version
    pushed: PushedVersion


def push(model: str, base: str, *, check: Check, keep: int | None = None) -> PushedVersion:
    """Copy the SavedModel folder `model` into `base` as its newest version; keep `keep` complete versions (None: all).

    `check` runs before any server can see the model; if it raises, nothing is pushed. Local folders are renamed into
    place, which is atomic. Object stores (`gs://`, `s3://`) have no atomic rename: there the model is checked in a
    local copy, then uploaded with `saved_model.pb`, without which no loader accepts a version, as the last file.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep {keep}: at least 1 version must be kept")
    fileio.makedirs(base)
    pushed = _upload(model, base, check) if _is_remote(base) else _rename_into_place(model, Path(base), check)
    if keep:
        _remove_all_but_newest(base, keep)
    return pushed


def _rename_into_place(model: str, base: Path, check: Check) -> PushedVersion:
    _remove_abandoned(base)
    with _partial_folder(base) as partial:
        copy = partial / "model"  # copy_dir recreates this folder, so the lock is on its parent
        io_utils.copy_dir(model, str(copy))
        check(copy)
        number = _next_version(str(base), int(time.time()))
        while True:
            target = base / str(number)
            try:
                # Fails, atomically, if another push has just used the number.
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
        # In microseconds, so that simultaneous pushes get different numbers without a lock.
        number = _next_version(base, time.time_ns() // 1000)
        target = f"{base.rstrip('/')}/{number}"
        io_utils.copy_dir(local, target, deny_regex_patterns=[rf"{SAVED_MODEL_FILE.replace('.', '[.]')}$"])
        io_utils.copy_file(f"{local}/{SAVED_MODEL_FILE}", f"{target}/{SAVED_MODEL_FILE}")
    return PushedVersion(target, number)


@contextlib.contextmanager
def _partial_folder(base: Path) -> Iterator[Path]:
    """A new, locked folder with a name that servers ignore; removed afterwards unless it was renamed."""
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
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_SH)
            if partial.exists():  # otherwise another push has just removed it as abandoned
                return partial, lock
            os.close(lock)


def _remove_abandoned(base: Path) -> None:
    """Remove the partial folders of killed pushes, whose locks ended with their processes."""
    for partial in base.glob(f".*{PARTIAL_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            is_old = time.time() - partial.stat().st_mtime > ABANDONED_AFTER_S
            lock = os.open(partial, os.O_RDONLY)
            try:
                if is_old or _acquired(lock):
                    shutil.rmtree(partial, ignore_errors=True)
            finally:
                os.close(lock)


def _acquired(lock: int) -> bool:
    """Whether the lock was free; False if the file system has no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_all_but_newest(base: str, keep: int) -> None:
    """Remove everything older than the newest `keep` complete versions, including interrupted uploads.

    Newer versions without saved_model.pb are kept, because their upload may be in progress.
    """
    names, complete = _versions(base), list(_complete_versions(base))
    if len(complete) >= keep:
        for old in names[names.index(complete[keep - 1]) + 1 :]:
            _remove_version(base, old)


def _remove_version(base: str, name: str) -> None:
    """Remove an old version: first hide it from servers, then delete its files.

    Ignores missing files: an interrupted upload did not write them, or another push is removing them, too.
    """
    logging.info("Removing version %s because newer versions are kept.", name)
    if _is_remote(base):
        with contextlib.suppress(FileNotFoundError, fileio.NotFoundError):
            fileio.remove(f"{base.rstrip('/')}/{name}/{SAVED_MODEL_FILE}")
        with contextlib.suppress(FileNotFoundError, fileio.NotFoundError):
            fileio.rmtree(f"{base.rstrip('/')}/{name}")
        return
    with _partial_folder(Path(base)) as hidden, contextlib.suppress(FileNotFoundError):
        (Path(base) / name).rename(hidden / name)


def _next_version(base: str, now: int) -> int:
    """`now`, or the newest version plus 1 if that is greater, so that the last push is served even if clocks differ."""
    return max([now, *(int(name) + 1 for name in _versions(base))])


def versions(base: str) -> list[Version]:
    """The complete versions in `base`, newest first, without unfinished uploads."""
    withdrawn_models = withdrawn(base)
    found = []
    for name in _complete_versions(base):
        path = f"{base.rstrip('/')}/{name}"
        digest = digest_of(path)
        found.append(Version(int(name), path, digest, digest in withdrawn_models))
    return found


def newest_version(base: str) -> str | None:
    """The path of the newest complete version in `base`; None if there is none."""
    newest = next(_complete_versions(base), None)
    return newest and f"{base.rstrip('/')}/{newest}"


def rollback(base: str, *, check: Check) -> Rollback:
    """Push again the newest version whose model differs from the served one and was not withdrawn.

    The served model is marked as withdrawn after the other has passed `check` and before it is pushed: an interrupted
    rollback can be repeated at any time. Two simultaneous rollbacks return to the same model under two numbers.
    """
    present = versions(base)
    if not present:
        raise PushError(f"{base}: contains no version; push a model first")
    served = present[0]
    earlier = [version for version in present if not version.is_withdrawn and version.digest != served.digest]
    if not earlier:
        raise PushError(
            f"{base}: version {served.number} is served, and there is no earlier one that was not withdrawn; "
            "push another model"
        )

    def check_and_withdraw(folder: Path) -> None:
        check(folder)
        _withdraw(base, served)

    return Rollback(served, earlier[0], push(earlier[0].path, base, check=check_and_withdraw))


def withdrawn(base: str) -> dict[str, Withdrawal]:
    """The models withdrawn by rollbacks, by digest. Files whose names are not those of records are ignored."""
    folder = f"{base.rstrip('/')}/{WITHDRAWN_FOLDER}"
    names = map(str, fileio.listdir(folder)) if fileio.exists(folder) else ()
    return {match[1]: _withdrawal(f"{folder}/{name}") for name in names if (match := _RECORD_NAME.fullmatch(name))}


def _withdrawal(record: str) -> Withdrawal:
    """A damaged record still withdraws its model, which its name identifies."""
    try:
        with fileio.open(record) as file:
            values = json.loads(file.read())
        return Withdrawal(f"version {int(values['version'])}, on {values['at']}", is_damaged=False)
    except (OSError, ValueError, KeyError, TypeError):
        reason = f"{record} cannot be read; remove it if the model may be pushed again"
        return Withdrawal(reason, is_damaged=True)


def reinstate(base: str, digest: str) -> None:
    """Remove the model's withdrawal, if there is one."""
    if digest in withdrawn(base):
        fileio.remove(_record_of(base, digest))


def digest_of(model: str) -> str:
    """Identifies the model in a SavedModel folder: BLAKE2b of its record and of the index of its variables.

    The index has a checksum of every variable, so the variables need not be read. The record, written by the Trainer
    and the Calibrator, has the configuration and the fingerprints of data and source. A model without a record is
    identified by its graph, whose bytes depend on the process that wrote it.
    """
    digest = hashlib.blake2b(digest_size=16)
    identity_file = RECORD_FILE if fileio.exists(f"{model}/{RECORD_FILE}") else SAVED_MODEL_FILE
    for name in (identity_file, _VARIABLES_INDEX):
        if fileio.exists(f"{model}/{name}"):
            with fileio.open(f"{model}/{name}", "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()


def _withdraw(base: str, version: Version) -> None:
    """Write the record, whole or not at all. Objects of a store are always whole."""
    record = _record_of(base, version.digest)
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    text = json.dumps({"version": version.number, "at": at})
    if _is_remote(base):
        with fileio.open(record, "w") as file:
            file.write(text)
        return
    Path(record).parent.mkdir(exist_ok=True)
    write_whole(Path(record), text.encode())


def _record_of(base: str, digest: str) -> str:
    return f"{base.rstrip('/')}/{WITHDRAWN_FOLDER}/{digest}.json"


def _complete_versions(base: str) -> Iterator[str]:
    """Names of the versions that have been uploaded completely, newest first."""
    return (name for name in _versions(base) if fileio.exists(f"{base.rstrip('/')}/{name}/{SAVED_MODEL_FILE}"))


def _versions(base: str) -> list[str]:
    names = [str(name).rstrip("/") for name in fileio.listdir(base)] if fileio.exists(base) else []
    return sorted((name for name in names if name.isascii() and name.isdigit()), key=int, reverse=True)


def _is_remote(path: str) -> bool:
    return "://" in path
