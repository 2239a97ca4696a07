"""Where images come from: each source is planned as shards, and a shard yields its images. No Beam, no TFX."""

import functools
import gzip
import hashlib
import os
import struct
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components import downloads
from components.image_files import Pixels, StoredImage, UnreadableImageError, from_file_bytes, from_pixels
from components.settings import DataSettings
from schema.features import EVAL, TEST, TRAIN

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
MVTEC_NORMAL = "good"
MVTEC_MASKS = "ground_truth"
_SPLIT_FOLDERS = {"train": TRAIN, "eval": EVAL, "val": EVAL, "validation": EVAL, "test": TEST}
_IDX_FILES = {TRAIN: "train", TEST: "t10k"}
_IDX_UNSIGNED_BYTE = 0x08


class DataError(Exception):
    """The data cannot be used; the message names the culprit and the remedy."""


@dataclass(frozen=True)
class SourceImage:
    """One readable image with what its source says of it."""

    image_id: str
    label: str
    named_split: str | None
    is_anomaly: int | None
    stored: StoredImage


@dataclass(frozen=True)
class Reject:
    """One image that cannot be used."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class DigitsShard:
    """scikit-learn's bundled 8x8 digits (UCI Optical Recognition of Handwritten Digits, test part)."""

    max_images: int | None

    def read(self) -> Iterator[SourceImage | Reject]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.round(digits.images * (255.0 / 16.0)).astype(np.uint8)
        for row, label in enumerate(digits.target[: self.max_images]):
            yield SourceImage(f"digits/{row:05d}", str(label), None, None, from_pixels(pixels[row]))


@dataclass(frozen=True)
class IdxShard:
    """Rows [start, stop) of a pair of IDX files (Yann LeCun's format), gzipped or not."""

    images_path: str
    labels_path: str | None
    named_split: str
    start: int
    stop: int

    def read(self) -> Iterator[SourceImage | Reject]:
        images = read_idx(self.images_path, dimensions=3)
        labels = read_idx(self.labels_path, dimensions=1) if self.labels_path else None
        stem = Path(self.images_path).name.removesuffix(".gz")
        for row in range(self.start, self.stop):
            label = "" if labels is None else str(labels[row])
            yield SourceImage(f"{stem}/{row:07d}", label, self.named_split, None, from_pixels(images[row]))


@dataclass(frozen=True)
class FileEntry:
    """One image file, its path relative to the folder that is read."""

    relative_path: str
    label: str
    named_split: str | None
    is_anomaly: int | None


@dataclass(frozen=True)
class FilesShard:
    """Some of the image files below a folder."""

    folder: str
    entries: tuple[FileEntry, ...]

    def read(self) -> Iterator[SourceImage | Reject]:
        for entry in self.entries:
            image_id = urllib.parse.quote(os.fsencode(entry.relative_path))
            try:
                stored = from_file_bytes(Path(self.folder, entry.relative_path).read_bytes())
            except OSError as error:
                yield Reject(image_id, f"cannot be opened: {error.strerror}")
            except UnreadableImageError as error:
                yield Reject(image_id, str(error))
            else:
                yield SourceImage(image_id, entry.label, entry.named_split, entry.is_anomaly, stored)


Shard = DigitsShard | IdxShard | FilesShard


@dataclass(frozen=True)
class SourcePlan:
    """All shards of a source, and what identifies its content."""

    shards: tuple[Shard, ...]
    image_count: int
    has_named_eval: bool
    fingerprint: str
    """Changes when a file is added, removed or changed (name, size, modification time)."""


def plan_source(settings: DataSettings) -> SourcePlan:
    """List the images without reading their pixels.

    Raises DataError for a folder that is missing, empty or without images, and for malformed IDX files.
    """
    if settings.source == "digits":
        count = min(settings.max_images or 1797, 1797)
        return SourcePlan((DigitsShard(settings.max_images),), count, False, "scikit-learn digits")
    if settings.source == "folder":
        return _plan_folder(settings)
    folder = Path(settings.path) if settings.path else downloads.fetch(settings.source)
    return _plan_idx(folder, settings)


def _plan_idx(folder: Path, settings: DataSettings) -> SourcePlan:
    _require_folder(folder)
    shards: list[Shard] = []
    paths: list[Path] = []
    count = 0
    for split, stem in _IDX_FILES.items():
        images_path = _find_idx(folder, f"{stem}-images-idx3-ubyte", f"{stem}-images.idx3-ubyte")
        labels_path = _find_idx(folder, f"{stem}-labels-idx1-ubyte", f"{stem}-labels.idx1-ubyte")
        if images_path is None:
            continue
        rows = read_idx(str(images_path), dimensions=3).shape[0]
        if labels_path:
            label_count = read_idx(str(labels_path), dimensions=1).shape[0]
            if label_count != rows:
                raise DataError(f"{labels_path}: holds {label_count:,} labels for the {rows:,} images of {images_path}")
        rows = min(rows, settings.max_images or rows)
        labels = str(labels_path) if labels_path else None
        for start in range(0, rows, settings.images_per_shard):
            stop = min(start + settings.images_per_shard, rows)
            shards.append(IdxShard(str(images_path), labels, split, start, stop))
        paths += [path for path in (images_path, labels_path) if path]
        count += rows
    if not shards:
        raise DataError(f"{folder}: holds no IDX images (train-images-idx3-ubyte or t10k-images-idx3-ubyte, maybe .gz)")
    return SourcePlan(tuple(shards), count, False, _fingerprint(folder, (p.name for p in paths)))


def _find_idx(folder: Path, *stems: str) -> Path | None:
    candidates = (folder / f"{stem}{suffix}" for stem in stems for suffix in ("", ".gz"))
    found = next((path for path in candidates if path.is_file()), None)
    return found and found.resolve()


def read_idx(path: str, *, dimensions: int) -> Pixels:
    """The array in an IDX file of unsigned bytes: [N] labels or [N, H, W] images.

    Raises DataError for a wrong magic number, a truncated file, or trailing bytes.
    """
    status = Path(path).stat()
    return _read_idx(path, dimensions, (status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _read_idx(path: str, dimensions: int, _version: tuple[int, int]) -> Pixels:
    """Cached, because a gzip file cannot be entered in the middle and every shard of it needs all of it."""
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{path}: is not a whole gzip file ({error}); download it again") from None
    header_bytes = 4 + 4 * dimensions
    if len(content) < header_bytes or content[:4] != bytes([0, 0, _IDX_UNSIGNED_BYTE, dimensions]):
        raise DataError(f"{path}: is not an IDX file of unsigned bytes in {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", content[4:header_bytes])
    expected, actual = int(np.prod(shape, dtype=object)), len(content) - header_bytes
    if actual != expected:
        state = "truncated" if actual < expected else "too long"
        raise DataError(
            f"{path}: is {state}: its header announces {'x'.join(map(str, shape))} = {expected:,} bytes, "
            f"{actual:,} follow; download or export it again"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def _plan_folder(settings: DataSettings) -> SourcePlan:
    folder = Path(settings.path or "").expanduser().absolute()
    _require_folder(folder)
    relative_paths, other_suffixes = _list_images(folder)
    if not relative_paths:
        found = f"only {', '.join(sorted(other_suffixes)[:10])} files" if other_suffixes else "nothing"
        raise DataError(f"{folder}: holds no images; found {found}, looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    entries = _describe_files(relative_paths[: settings.max_images], settings)
    step = settings.images_per_shard
    shards = tuple(FilesShard(str(folder), entries[i : i + step]) for i in range(0, len(entries), step))
    has_named_eval = any(entry.named_split == EVAL for entry in entries)
    fingerprint = _fingerprint(folder, (entry.relative_path for entry in entries))
    return SourcePlan(shards, len(entries), has_named_eval, fingerprint)


def _list_images(folder: Path) -> tuple[list[str], set[str]]:
    """Sorted relative paths of the image files, and the suffixes of all others; linked folders are not entered."""
    relative_paths, other_suffixes = [], set()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != MVTEC_MASKS)
        for name in names:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million names
            if name.startswith("."):
                continue
            if suffix in IMAGE_SUFFIXES:
                relative_paths.append(os.path.relpath(os.path.join(parent, name), folder))  # noqa: PTH118
            else:
                other_suffixes.add(suffix or "extensionless")
    return sorted(relative_paths), other_suffixes


def _describe_files(relative_paths: list[str], settings: DataSettings) -> tuple[FileEntry, ...]:
    """Label, split and normality from the folder names: flat, one folder per class, named splits, or MVTec."""
    parts_of = [Path(path).parts for path in relative_paths]
    names_splits = any(len(parts) > 1 and parts[0].lower() in ("train", "test") for parts in parts_of)
    is_mvtec = names_splits and any(parts[:2] == ("train", MVTEC_NORMAL) for parts in parts_of)
    entries = []
    for path, parts in zip(relative_paths, parts_of, strict=True):
        named_split = _SPLIT_FOLDERS.get(parts[0].lower()) if names_splits and len(parts) > 1 else None
        folders = parts[1:-1] if named_split else parts[:-1]
        label = folders[0] if folders else ""
        is_anomaly = int(label != MVTEC_NORMAL) if is_mvtec and named_split else None
        entries.append(FileEntry(path, label, named_split, is_anomaly))
    return tuple(entries)


def _require_folder(folder: Path) -> None:
    if not folder.exists():
        raise DataError(f"{folder}: no such folder; set data.path to the folder that holds the images")
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; set data.path to the folder that holds the images")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: permission denied; make it readable for this user")


def _fingerprint(folder: Path, names: Iterator[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        try:
            status = (folder / name).stat()
        except OSError:  # a dangling link: rejected, with its name, when it is read
            status = (folder / name).lstat()
        digest.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return digest.hexdigest()
