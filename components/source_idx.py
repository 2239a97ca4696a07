"""`idx`, `mnist`, `fashion_mnist`: pairs of IDX files (Yann LeCun's format), gzipped or not."""

import contextlib
import functools
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from components.gzip_streams import DAMAGED, GZIP_MAGIC, unzipped
from components.image_files import Pixels, from_pixels_of_many
from components.object_store import AnyPath, as_path
from components.settings import DataSettings
from components.source_plan import (
    DataError,
    Reject,
    SourceImage,
    SourcePlan,
    fingerprint_files,
    require_folder,
    row_ranges,
    rows_per_batch,
)
from schema.features import TEST, TRAIN

_STEMS: Final = {TRAIN: "train", TEST: "t10k"}
_UNSIGNED_BYTE: Final = 0x08


@dataclass(frozen=True)
class _IdxFile:
    """The array of an IDX file, and the mapping that it lies in."""

    array: Pixels
    mapping: mmap.mmap

    def rows(self, start: int, stop: int) -> Pixels:
        """A copy; the pages that were read for it do not add up to the process's memory."""
        copy = self.array[start:stop].copy()
        self.mapping.madvise(mmap.MADV_DONTNEED)
        return copy


@dataclass(frozen=True)
class IdxShard:
    """Rows [start, stop) of a pair of IDX files."""

    images_path: str
    labels_path: str | None
    named_split: str
    start: int
    stop: int

    def read(self) -> Iterator[SourceImage | Reject]:
        images = _open_idx(self.images_path, dimensions=3)
        labels = read_idx(self.labels_path, dimensions=1) if self.labels_path else None
        stem = as_path(self.images_path).name.removesuffix(".gz")
        step = rows_per_batch(images.array[0].nbytes)
        for start in range(self.start, self.stop, step):
            rows = range(start, min(start + step, self.stop))
            images_of_rows = from_pixels_of_many(images.rows(rows.start, rows.stop))
            labels_of_rows = [""] * len(rows) if labels is None else map(str, labels[rows.start : rows.stop].tolist())
            for row, label, stored in zip(rows, labels_of_rows, images_of_rows, strict=True):
                yield SourceImage(f"{stem}/{row:07d}", label, self.named_split, None, stored)


def plan_idx(folder: AnyPath, settings: DataSettings) -> SourcePlan:
    """The pairs that `folder` holds under MNIST's names: `train-*` is split `train`, `t10k-*` is split `test`.

    Raises DataError where there is none, where one is malformed, and where labels and images differ in number.
    """
    require_folder(folder)
    shards: list[IdxShard] = []
    paths: list[AnyPath] = []
    for split, stem in _STEMS.items():
        images_path = _find(folder, f"{stem}-images-idx3-ubyte", f"{stem}-images.idx3-ubyte")
        labels_path = _find(folder, f"{stem}-labels-idx1-ubyte", f"{stem}-labels.idx1-ubyte")
        if images_path is None:
            continue
        rows = _count_rows(images_path, labels_path)
        labels = str(labels_path) if labels_path else None
        ranges = row_ranges(min(rows, settings.max_images or rows), settings.images_per_shard)
        shards += [IdxShard(str(images_path), labels, split, start, stop) for start, stop in ranges]
        paths += [path for path in (images_path, labels_path) if path]
    if not shards:
        raise DataError(f"{folder}: holds no IDX images (train-images-idx3-ubyte or t10k-images-idx3-ubyte, maybe .gz)")
    count = sum(shard.stop - shard.start for shard in shards)
    return SourcePlan(tuple(shards), count, False, fingerprint_files(folder, (path.name for path in paths)))


def _find(folder: AnyPath, *stems: str) -> AnyPath | None:
    candidates = (folder / f"{stem}{suffix}" for stem in stems for suffix in ("", ".gz"))
    found = next((path for path in candidates if path.is_file()), None)
    return found.resolve() if isinstance(found, Path) else found


def _count_rows(images_path: AnyPath, labels_path: AnyPath | None) -> int:
    rows: int = read_idx(str(images_path), dimensions=3).shape[0]
    if labels_path:
        label_count = read_idx(str(labels_path), dimensions=1).shape[0]
        if label_count != rows:
            raise DataError(f"{labels_path}: holds {label_count:,} labels for the {rows:,} images of {images_path}")
    return rows


def read_idx(path: str, *, dimensions: int) -> Pixels:
    """The array in an IDX file of unsigned bytes: [N] labels or [N, H, W] images; mapped, not read.

    Raises DataError for a wrong magic number, a truncated file, trailing bytes, or a dimension of zero.
    """
    return _open_idx(path, dimensions=dimensions).array


def _open_idx(path: str, *, dimensions: int) -> _IdxFile:
    try:
        status = as_path(path).stat()
        return _map_idx(path, dimensions, (status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


@functools.lru_cache(maxsize=4)
def _map_idx(path: str, dimensions: int, version: tuple[int, int]) -> _IdxFile:
    """Cached, because a gzip file cannot be entered in the middle and every shard of it needs all of it.

    Such a file, or a remote one, is copied to a temporary file, so that memory does not depend on its size.
    """
    with as_path(path).open("rb") as file, contextlib.ExitStack() as stack:
        plain: BinaryIO = file
        is_gzip = plain.read(2) == GZIP_MAGIC
        plain.seek(0)
        if is_gzip or "://" in path:
            source = stack.enter_context(unzipped(file)) if is_gzip else file
            plain = stack.enter_context(tempfile.TemporaryFile())
            _copy(path, source, plain)
        total_bytes = plain.seek(0, os.SEEK_END)
        plain.seek(0)
        header_bytes = 4 + 4 * dimensions
        shape = _shape(path, plain.read(header_bytes), dimensions, total_bytes)
        mapping = mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_READ)
        return _IdxFile(np.frombuffer(mapping, np.uint8, offset=header_bytes).reshape(shape), mapping)


def _copy(path: str, source: BinaryIO, target: BinaryIO) -> None:
    try:
        shutil.copyfileobj(source, target)
        target.flush()
    except (*DAMAGED, ValueError, struct.error) as error:
        raise DataError(f"{path}: is not a whole gzip file ({error}); download it again") from None


def _shape(path: str, header: bytes, dimensions: int, total_bytes: int) -> tuple[int, ...]:
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise DataError(f"{path}: is not an IDX file of unsigned bytes in {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    announced = f"its header announces {'x'.join(map(str, shape))}"
    expected, actual = int(np.prod(shape, dtype=object)), total_bytes - len(header)
    if actual != expected:
        state = "truncated" if actual < expected else "too long"
        raise DataError(
            f"{path}: is {state}: {announced} = {expected:,} bytes, {actual:,} follow; download or export it again"
        )
    if not expected:
        raise DataError(f"{path}: is empty: {announced}; download or export it again")
    return shape
