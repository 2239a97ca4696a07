"""`folder`: image files in a folder: flat, one folder per class, named splits, or MVTec AD's layout."""

import functools
import itertools
import os
import stat
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

from components.settings import DataSettings
from components.sources.files import (
    LINKED_OUTSIDE,
    DataError,
    Links,
    SourceFiles,
    read_ahead,
    read_bytes,
    require_folder,
)
from components.sources.plan import SPLIT_OF_NAME, Reject, SourceImage, SourcePlan, row_ranges
from images.decoding import UnreadableImageError, page_count
from images.formats import IMAGE_SUFFIXES, MASKS_FOLDER, page_id
from images.reading import EIGHT_BITS, Reading
from images.stored import StoredImage, StoredMask, from_file_bytes, mask_from_file_bytes
from runtime.object_store import AnyPath, RemotePath, as_path
from schema.features import EVAL, TEST

MAX_FILE_BYTES: Final = 1 << 30
"""Larger files are rejected before they are read; 100 million pixels of 16-bit RGB need at most 600 MB."""
NORMAL_FOLDERS: Final = frozenset({"good", "ok", "okay", "normal", "nominal", "pass", "defect_free", "no_defect"})
"""Names, in lower case, of a folder of normal images."""
_SUFFIXES_NAMED: Final = 10
_PRODUCTS_NAMED: Final = 5
_MVTEC_MASKS: Final = MASKS_FOLDER
_TRAIN_FOLDERS, _TEST_FOLDERS = frozenset({"train", "training"}), frozenset({"test", "testing"})
_SPLIT_FOLDERS: Final = _TRAIN_FOLDERS | _TEST_FOLDERS
"""A folder with one of these has named splits; in lower case."""


@dataclass(frozen=True)
class FileEntry:
    """One image file; its path and those of its masks are relative to the data folder."""

    relative_path: str
    label: str
    named_split: str | None
    is_anomaly: int | None
    mask_path: str | None = None
    group: str = ""
    roi_path: str | None = None
    """Of the mask that is white where the image counts."""


@dataclass(frozen=True)
class FilesShard:
    """Some of the image files in a folder."""

    folder: str
    entries: tuple[FileEntry, ...]
    follow_links: bool
    reading: Reading = EIGHT_BITS
    workers: int | None = None

    def read(self) -> Iterator[SourceImage | Reject]:
        folder = as_path(self.folder)
        links = Links(folder, follow_links=self.follow_links)
        read_one = functools.partial(_read_one, folder=folder, links=links, reading=self.reading)
        return itertools.chain.from_iterable(read_ahead(read_one, self.entries, folder, workers=self.workers))


def entries_of(plan: SourcePlan) -> list[FileEntry]:
    """The files of a plan, in its order."""
    return [entry for shard in plan.shards if isinstance(shard, FilesShard) for entry in shard.entries]


def _read_one(entry: FileEntry, *, folder: AnyPath, links: Links, reading: Reading) -> list[SourceImage | Reject]:
    """The image in a file or, if the reading takes all pages, each of them: `name.tif#1`, `name.tif#2`, ..."""
    image_id = urllib.parse.quote(os.fsencode(entry.relative_path))
    try:
        content = _file_bytes(folder / entry.relative_path, links)
    except OSError as error:
        return [Reject(image_id, f"cannot be opened: {error.strerror or error}")]
    except UnreadableImageError as error:
        return [Reject(image_id, str(error))]
    read_page = functools.partial(_read_page, entry, content, folder=folder, links=links, reading=reading)
    pages = page_count(content) if reading.page == "all" else 1
    if pages == 1:
        return [read_page(image_id, page=None)]
    return [read_page(page_id(image_id, page), page=page) for page in range(pages)]


def _read_page(
    entry: FileEntry, content: bytes, image_id: str, *,
    page: int | None, folder: AnyPath, links: Links, reading: Reading,
) -> SourceImage | Reject:  # fmt: skip
    try:
        stored = _stored(entry, content, reading, page, folder, links)
        mask = _mask(folder, entry.mask_path, stored, links) if entry.mask_path else None
    except UnreadableImageError as error:
        return Reject(image_id, str(error))
    if page is not None:
        stored = stored._replace(page_count=1)
    is_blurred = mask is not None and mask.has_many_intermediate_values
    known = (entry.label, entry.named_split, entry.is_anomaly)
    return SourceImage(image_id, *known, stored, mask and mask.encoded, is_blurred, entry.group)


def _stored(
    entry: FileEntry, content: bytes, reading: Reading, page: int | None, folder: AnyPath, links: Links
) -> StoredImage:
    if not entry.roi_path:
        return from_file_bytes(content, reading, page=page)
    try:
        roi = _file_bytes(folder / entry.roi_path, links)
    except OSError as error:
        raise UnreadableImageError(f"its roi {entry.roi_path} cannot be opened: {error.strerror or error}") from None
    except UnreadableImageError as error:
        raise UnreadableImageError(f"its roi {entry.roi_path}: {error}") from None
    return from_file_bytes(content, reading, page=page, roi=roi)


def _mask(folder: AnyPath, relative_path: str, stored: StoredImage, links: Links) -> StoredMask:
    """Raises UnreadableImageError for an unusable mask, so that its image is rejected instead of used without it."""
    try:
        content = _file_bytes(folder / relative_path, links)
        return mask_from_file_bytes(content, height_px=stored.height_px, width_px=stored.width_px)
    except OSError as error:
        raise UnreadableImageError(f"its mask {relative_path} cannot be opened: {error.strerror or error}") from None
    except UnreadableImageError as error:
        raise UnreadableImageError(f"its mask {relative_path}: {error}") from None


def _file_bytes(path: AnyPath, links: Links) -> bytes:
    if links.lead_outside(path):
        raise UnreadableImageError(LINKED_OUTSIDE)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError("not a regular file")  # reading a named pipe would block forever
    if status.st_size > MAX_FILE_BYTES:
        raise UnreadableImageError(f"{status.st_size:,} bytes, more than {MAX_FILE_BYTES:,}")
    return read_bytes(path, status.st_size)


def plan_entries(
    folder: AnyPath, entries: tuple[FileEntry, ...], settings: DataSettings, reading: Reading, *, listed_in: str | None
) -> SourcePlan:
    """Shards of the files; the fingerprint covers the files and, if given, the manifest `listed_in`."""
    ranges = row_ranges(len(entries), settings.images_per_shard)
    shards = tuple(
        FilesShard(str(folder), entries[start:stop], settings.follow_links, reading, settings.workers)
        for start, stop in ranges
    )
    names = [listed_in] if listed_in else []
    names += [entry.relative_path for entry in entries]
    names += [path for entry in entries for path in (entry.mask_path, entry.roi_path) if path]
    has_named_eval = any(entry.named_split == EVAL for entry in entries)
    return SourcePlan.of_files(SourceFiles(folder, tuple(names)), shards, len(entries), has_named_eval)


def plan_folder(settings: DataSettings, reading: Reading = EIGHT_BITS) -> SourcePlan:
    """The image files in data.path, by suffix. Raises DataError if the folder is missing or has no images."""
    folder = as_path(settings.path or "")
    require_folder(folder)
    relative_paths, others = _list_images(folder)
    most_frequent = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:_SUFFIXES_NAMED]
    skipped = ", ".join(f"{count:,} {suffix} {'file' if count == 1 else 'files'}" for suffix, count in most_frequent)
    masks: frozenset[str] = frozenset()
    if (folder / _MVTEC_MASKS).is_dir():
        Links(folder, follow_links=settings.follow_links).require_inside(folder / _MVTEC_MASKS)
        masks = frozenset(_list_images(folder / _MVTEC_MASKS)[0])
    if not relative_paths:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{folder}: contains no images; found {skipped or 'nothing'}, supported are {suffixes}")
    _require_one_product(folder, relative_paths)
    entries = _describe_files(relative_paths[: settings.max_images], masks)
    plan = plan_entries(folder, entries, settings, reading, listed_in=None)
    return replace(plan, skipped=skipped, warning=_warning_of_classes(entries) or _warning_without_test(entries))


def _warning_of_classes(entries: tuple[FileEntry, ...]) -> str:
    """A warning about folders that are classes, but named like a split; empty if there are none."""
    suspects = sorted({entry.label for entry in entries if entry.label.lower() in SPLIT_OF_NAME})
    if not suspects:
        return ""
    return (
        f"the folders {', '.join(suspects)} are classes, although they are named like splits: splits are the folders "
        "train, valid and test in data.path itself; if these are splits, move them there"
    )


def _warning_without_test(entries: tuple[FileEntry, ...]) -> str:
    """A warning that the folders name other splits but no test, so that nothing could test the model; or empty."""
    if any(entry.named_split in (None, TEST) or entry.is_anomaly for entry in entries):
        return ""
    return (
        "the folders name splits but no test, so a run would have no test images: move some images to test/good in "
        "data.path; or move all out of the folders of splits, and a part is tested with (data.test_fraction)"
    )


def _list_images(folder: AnyPath) -> tuple[list[str], Counter[str]]:
    """Sorted relative paths of the image files, and the number of other files by suffix; ignores linked folders."""
    relative_paths, others = [], Counter[str]()
    for path in _list_files(folder) if isinstance(folder, Path) else _list_objects(folder):
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a million names
        if suffix in IMAGE_SUFFIXES:
            relative_paths.append(path)
        else:
            others[suffix or "suffixless"] += 1
    return sorted(relative_paths), others


def _list_files(folder: Path) -> Iterator[str]:
    """Relative paths of all files except hidden files and masks."""
    for parent, folders, names in os.walk(folder, onerror=_cannot_be_listed):
        folders[:] = sorted(name for name in folders if not _is_skipped(name))
        for name in names:
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(parent, name), folder)  # noqa: PTH118


def _list_objects(folder: RemotePath) -> Iterator[str]:
    for path, _ in folder.files_below():
        *folders, name = path.split("/")
        if not name.startswith(".") and not any(map(_is_skipped, folders)):
            yield path


def _is_skipped(folder_name: str) -> bool:
    return folder_name.startswith(".") or folder_name == _MVTEC_MASKS


def _cannot_be_listed(error: OSError) -> NoReturn:
    """Fail instead of silently leaving out a folder without read permission."""
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}; make it readable or move it elsewhere")


def _require_one_product(folder: AnyPath, relative_paths: list[str]) -> None:
    """Raise DataError if the splits are not in the folder itself, but in folders below it."""
    splits_of: dict[str, set[str]] = {}
    for path in relative_paths:
        folders = path.split("/")[:-1]
        depth = next((depth for depth, name in enumerate(folders) if name.lower() in _SPLIT_FOLDERS), None)
        if depth is not None:
            splits_of.setdefault("/".join(folders[:depth]), set()).add(folders[depth].lower())
    products = sorted(
        product
        for product, splits in splits_of.items()
        if product and splits & _TRAIN_FOLDERS and splits & _TEST_FOLDERS
    )
    if "" in splits_of or not products:
        return
    if len(products) == 1:
        raise DataError(
            f"{folder}: the folders train and test are further down; set data.path to {folder / products[0]}"
        )
    named = ", ".join(products[:_PRODUCTS_NAMED]) + (", ..." if len(products) > _PRODUCTS_NAMED else "")
    raise DataError(
        f"{folder}: holds {len(products)} products with folders train and test of their own ({named}); a model learns "
        f"one product: set data.path to one of them, such as {folder / products[0]}"
    )


def _describe_files(relative_paths: list[str], masks: frozenset[str]) -> tuple[FileEntry, ...]:
    """Label, split and normality from the folder names of any of the four layouts.

    The paths in `masks` are relative to the folder of masks.
    """
    parts_of = [Path(path).parts for path in relative_paths]
    names_splits = any(len(parts) > 1 and parts[0].lower() in _SPLIT_FOLDERS for parts in parts_of)
    names_normal = any(
        len(parts) > 2 and parts[0].lower() in _TRAIN_FOLDERS and is_normal_folder(parts[1]) for parts in parts_of
    )
    entries = []
    for path, parts in zip(relative_paths, parts_of, strict=True):
        named_split = SPLIT_OF_NAME.get(parts[0].lower()) if names_splits and len(parts) > 1 else None
        folders = parts[1:-1] if named_split else parts[:-1]
        label = folders[0] if folders else ""
        is_anomaly = int(not is_normal_folder(label)) if names_normal and named_split else None
        mask_path = _mask_of(parts, masks) if is_anomaly else None
        entries.append(FileEntry(path, label, named_split, is_anomaly, mask_path))
    return tuple(entries)


def is_normal_folder(name: str) -> bool:
    """Whether a folder's name says that its images are normal, such as `good`, `OK` or `defect-free`."""
    return name.strip().lower().replace("-", "_").replace(" ", "_") in NORMAL_FOLDERS


def _mask_of(parts: tuple[str, ...], masks: frozenset[str]) -> str | None:
    """`test/crack/000.jpg` -> `ground_truth/crack/000_mask.png`, with or without `_mask`; None if there is none."""
    stem = str(Path(*parts[1:]).with_suffix(""))
    names = (f"{stem}{ending}{suffix}" for ending in ("_mask", "") for suffix in (".png", *sorted(IMAGE_SUFFIXES)))
    found = next((name for name in names if name in masks), None)
    return found and f"{_MVTEC_MASKS}/{found}"
