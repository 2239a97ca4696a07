"""The image files in a folder or an object store, as they are now."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from runtime.object_store import AnyPath, RemotePath
from serving.errors import sendable
from serving.image_files import images_below, is_image


@dataclass(frozen=True)
class Found:
    """An image file: its path below the watched place, and what changes when its content does."""

    name: str
    size_bytes: int
    mtime_ns: int
    inode: int = field(default=0, compare=False)
    """0 in an object store. Survives a rename, which changes nothing else."""
    links: int = field(default=1, compare=False)

    @property
    def key(self) -> str:
        """The name as text that a database can store."""
        return sendable(self.name)


def all_images(place: AnyPath) -> Iterator[Found]:
    """Every image below `place`, the oldest first; raises OSError if `place` cannot be listed."""
    if isinstance(place, RemotePath):
        objects = ((name, status) for name, status in place.files_below() if is_image(name))
        found = [Found(name, status.st_size, status.st_mtime_ns) for name, status in objects]
    else:
        with os.scandir(place):  # os.walk ignores that a folder cannot be listed
            pass
        found = [image for image in (look_if_possible(place, name) for name in images_below(place)) if image]
    yield from sorted(found, key=lambda image: (image.mtime_ns, image.name))


def look(place: AnyPath, name: str) -> Found | None:
    """The file as it is now; None if it is gone, or is no file. Raises OSError if that cannot be determined."""
    try:
        status = (place / name).stat() if isinstance(place, RemotePath) else os.stat(f"{place}/{name}")  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if isinstance(status, os.stat_result):
        return Found(name, status.st_size, status.st_mtime_ns, status.st_ino, status.st_nlink)
    return Found(name, status.st_size, status.st_mtime_ns)


def is_gone(place: AnyPath, name: str) -> bool:
    """Whether the file certainly is not there any more."""
    try:
        return look(place, name) is None
    except OSError:
        return False


def look_if_possible(place: AnyPath, name: str) -> Found | None:
    """None also if the file cannot be examined: the next listing tries again."""
    try:
        return look(place, name)
    except OSError:
        return None
