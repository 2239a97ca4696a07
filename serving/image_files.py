"""Finds the image files that `autoencoder score` is given: files, folders and patterns."""

import fnmatch
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from images.formats import IMAGE_SUFFIXES, MASKS_FOLDER
from runtime.errors import UsageError

_ANY_FOLDERS: Final = "**"


def image_files(arguments: Iterable[str]) -> Iterator[Path]:
    """The files that the arguments select: a file itself, all images below a folder, or the matches of a pattern.

    Linked folders, hidden files, and the masks of MVTec AD's layout are skipped unless an argument names them. What
    exists is never treated as a pattern. Raises UsageError for an argument that selects nothing.
    """
    for argument in arguments:
        path = Path(argument)
        if path.is_file():
            yield path
            continue
        found = (path / name for name in images_below(path)) if path.is_dir() else _matches(*_existing_part(path))
        images = sorted(path for path in set(found) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        if not images:
            raise UsageError(f"{argument}: no such file, and no image found below it or matching it")
        yield from images


def common_folder(arguments: Iterable[str]) -> Path:
    """The deepest folder, as an absolute path, that contains all that the arguments name: of a pattern, what exists."""
    paths = map(Path, arguments)
    folders = (path.parent if path.is_file() else path if path.is_dir() else _existing_part(path)[0] for path in paths)
    return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))  # noqa: PTH100


def _existing_part(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The longest part of the path that exists, and the rest, which is the pattern."""
    folder, rest = Path(path.anchor), path.parts[1:] if path.anchor else path.parts
    while rest and (folder / rest[0]).exists():
        folder, rest = folder / rest[0], rest[1:]
    return folder, rest


def images_below(folder: Path) -> Iterator[str]:
    """Every name, relative to `folder`, that `is_image` accepts; without pathlib, which takes four times as long."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if is_searched(name)]
        below = os.path.relpath(parent, folder)
        prefix = "" if below == os.curdir else f"{below}/"
        yield from (f"{prefix}{name}" for name in names if is_image(name))


def is_image(name: str) -> bool:
    """Whether a name relative to a searched folder is that of an image: not hidden, and no mask."""
    *folders, file_name = name.split("/")
    is_visible = not file_name.startswith(".") and all(map(is_searched, folders))
    return is_visible and os.path.splitext(file_name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def is_searched(folder_name: str) -> bool:
    """Whether a folder below a searched one is searched too."""
    return not folder_name.startswith(".") and folder_name != MASKS_FOLDER


def _matches(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """The paths below `folder` whose parts match; `**` stands for any number of folders, without linked ones."""
    if not patterns:
        yield folder
        return
    pattern, *following = patterns
    if pattern == _ANY_FOLDERS:
        yield from _matches(folder, tuple(following) or ("*",))
    for entry in _entries(folder):
        if pattern == _ANY_FOLDERS:
            if entry.is_dir(follow_symlinks=False) and entry.name != MASKS_FOLDER:
                yield from _matches(folder / entry.name, patterns)
        elif fnmatch.fnmatchcase(entry.name, pattern) and (not following or entry.is_dir()):
            yield from _matches(folder / entry.name, tuple(following))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What the folder holds, without hidden entries; nothing if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []
