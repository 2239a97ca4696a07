"""The kernel's notifications about a folder on a local disk (inotify, Linux)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from serving.image_files import is_image, is_searched

_SHARES: Final = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "virtiofs",
    "ceph",
    "fuse",
    "gluster",
    "lustre",
    "afs",
    "vboxsf",
    "gfs2",
    "ocfs2",
)
"""File systems on which other machines may write, and of which no notification tells."""


@dataclass
class Changes:
    """What was noticed: names in order, each with whether the file is complete, and whether to list the folder."""

    files: list[tuple[str, bool]] = field(default_factory=list)
    must_list: bool = False


class Notifications:
    """Watches a folder and the folders below it."""

    def __init__(self, place: Path) -> None:
        """Raises OSError if the kernel cannot watch all of them, and ImportError without the extra `watch`."""
        from inotify_simple import INotify, flags

        self._flags: Any = flags
        self._place = place
        self._inotify = INotify()
        self._folders: dict[int, str] = {}
        try:
            self._root = self._add("")
            self._identity = _identity(place)
            self._add_below("")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()

    @property
    def is_lost(self) -> bool:
        """Whether another folder has taken the watched one's place, such as after a disk was mounted again."""
        return self._root not in self._folders or _identity(self._place) != self._identity

    def read(self, timeout_s: float) -> Changes:
        """The changes so far; waits up to `timeout_s` for the first.

        Raises OSError if a new folder cannot be watched.
        """
        changes, flags = Changes(), self._flags
        for event in self._inotify.read(timeout=round(timeout_s * 1000)):
            if event.mask & flags.Q_OVERFLOW:
                changes.must_list = True
            elif event.mask & flags.IGNORED:
                self._folders.pop(event.wd, None)
            elif event.name and event.wd in self._folders:
                name = str(Path(self._folders[event.wd], event.name))
                if event.mask & flags.ISDIR:
                    self._look_into(name, changes)
                elif is_image(name):
                    changes.files.append((name, bool(event.mask & (flags.CLOSE_WRITE | flags.MOVED_TO))))
        return changes

    def _look_into(self, folder: str, changes: Changes) -> None:
        """Watch a new folder, in which there may be files already."""
        if is_searched(Path(folder).name):
            changes.must_list = True
            try:
                self._add(folder)
                self._add_below(folder)
            except (FileNotFoundError, NotADirectoryError):  # gone again
                pass

    def _add_below(self, folder: str) -> None:
        for name in _folders_below(self._place, folder):
            self._add(name)

    def _add(self, folder: str) -> int:
        flags = self._flags
        mask = flags.CREATE | flags.MODIFY | flags.CLOSE_WRITE | flags.MOVED_TO | flags.ONLYDIR | flags.DONT_FOLLOW
        mask = mask & ~flags.DONT_FOLLOW if not folder else mask  # the folder itself may be a link
        watch: int = self._inotify.add_watch(os.fspath(self._place / folder), mask)
        self._folders[watch] = folder
        return watch


def is_share(place: Path) -> bool:
    """Whether the folder lies on a file system on which other machines may write."""
    return _file_system(place.resolve(), Path("/proc/self/mountinfo")).startswith(_SHARES)


def _file_system(folder: Path, mounts: Path) -> str:
    """The type of the file system that holds `folder`; empty if unknown."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].encode(errors="surrogateescape").decode("unicode_escape", "surrogateescape")
        if folder.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind


def _folders_below(place: Path, folder: str) -> Iterator[str]:
    for parent, folders, _ in os.walk(place / folder):
        folders[:] = [name for name in folders if is_searched(name)]
        for name in folders:
            path = Path(parent, name)
            if not path.is_symlink():
                yield str(path.relative_to(place))


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
