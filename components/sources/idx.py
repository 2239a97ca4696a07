"""`idx`, `mnist`, `fashion_mnist`: pairs of IDX files (Yann LeCun's format), optionally gzipped."""

import contextlib
import functools
import math
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np

from components.settings import DataSettings
from components.sources.files import DataError, Links, SourceFiles, require_folder
from components.sources.plan import Reject, SourceImage, SourcePlan, row_ranges, rows_per_batch
from images.decoding import Pixels
from images.formats import MAX_PIXELS, MAX_SIDE_PX
from images.stored import from_pixels_of_many
from runtime.gzip_streams import DAMAGED, GZIP_MAGIC, unzipped
from runtime.object_store import AnyPath, as_path
from schema.features import TEST, TRAIN

_STEMS: Final = {TRAIN: "train", TEST: "t10k"}
_UNSIGNED_BYTE: Final = 0x08
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class _IdxFile:
    """The array of an IDX file, and the memory map that holds it."""

    array: Pixels
    mapping: mmap.mmap

    def rows(self, start: int, stop: int) -> Pixels:
        """A copy; releases the pages that were read for it, so that they do not add up."""
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
    """The pairs of files in `folder` with MNIST's names: `train-*` becomes split `train`, `t10k-*` split `test`.

    Raises DataError if there is none, if one is malformed or links outside `folder`, and if the numbers of labels and
    images differ.
    """
    require_folder(folder)
    links = Links(folder, follow_links=settings.follow_links)
    shards: list[IdxShard] = []
    paths: list[AnyPath] = []
    for split, stem in _STEMS.items():
        images_path = _find(folder, links, f"{stem}-images-idx3-ubyte", f"{stem}-images.idx3-ubyte")
        labels_path = _find(folder, links, f"{stem}-labels-idx1-ubyte", f"{stem}-labels.idx1-ubyte")
        if images_path is None:
            continue
        rows = _count_rows(images_path, labels_path)
        labels = str(labels_path) if labels_path else None
        ranges = row_ranges(min(rows, settings.max_images or rows), settings.images_per_shard)
        shards += [IdxShard(str(images_path), labels, split, start, stop) for start, stop in ranges]
        paths += [path for path in (images_path, labels_path) if path]
    if not shards:
        raise DataError(f"{folder}: contains no IDX images (train-images-idx3-ubyte or t10k-images-idx3-ubyte, or .gz)")
    count = sum(shard.stop - shard.start for shard in shards)
    return SourcePlan.of_files(SourceFiles(folder, tuple(path.name for path in paths)), shards, count, False)


def _find(folder: AnyPath, links: Links, *stems: str) -> AnyPath | None:
    """The first of these files that exists, by its name in `folder` even if it is a link."""
    candidates = (folder / f"{stem}{suffix}" for stem in stems for suffix in ("", ".gz"))
    found = next((path for path in candidates if path.is_file()), None)
    if found:
        links.require_inside(found)
    return found


def _count_rows(images_path: AnyPath, labels_path: AnyPath | None) -> int:
    rows, *sides = read_idx(str(images_path), dimensions=3).shape
    if max(sides) > MAX_SIDE_PX or math.prod(sides) > MAX_PIXELS:
        raise DataError(
            f"{images_path}: images of {sides[0]}x{sides[1]} pixels; at most {MAX_SIDE_PX:,} a side and "
            f"{MAX_PIXELS:,} in all are supported; scale them down"
        )
    if labels_path:
        label_count = read_idx(str(labels_path), dimensions=1).shape[0]
        if label_count != rows:
            raise DataError(f"{labels_path}: has {label_count:,} labels for the {rows:,} images of {images_path}")
    return rows


def read_idx(path: str, *, dimensions: int) -> Pixels:
    """The array in an IDX file of unsigned bytes, memory-mapped: [N] labels or [N, H, W] images.

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
    """Cached, because gzip has no random access: every shard would have to unzip the whole file.

    A gzip or remote file is copied to a temporary file, so that memory does not depend on its size.
    """
    with as_path(path).open("rb") as file, contextlib.ExitStack() as stack:
        is_gzip = file.read(2) == GZIP_MAGIC
        file.seek(0)
        read = functools.partial(_unzip, path, stack.enter_context(unzipped(file))) if is_gzip else file.read
        header = read(4 + 4 * dimensions)
        shape = _shape(path, header, dimensions)
        plain: BinaryIO = file
        if is_gzip or "://" in path:
            plain = stack.enter_context(tempfile.TemporaryFile())
            plain.write(header)
            # One byte too many proves that it is too long; copying the rest could fill the disk (a gzip bomb).
            _copy(read, plain, max_bytes=math.prod(shape) + 1)
        _check_size(path, shape, following_bytes=plain.seek(0, os.SEEK_END) - len(header))
        mapping = mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_READ)
        return _IdxFile(np.frombuffer(mapping, np.uint8, offset=len(header)).reshape(shape), mapping)


def _unzip(path: str, source: BinaryIO, byte_count: int) -> bytes:
    try:
        return source.read(byte_count)
    except (*DAMAGED, ValueError, struct.error) as error:
        raise DataError(f"{path}: damaged or incomplete gzip file ({error}); download it again") from None


def _copy(read: Callable[[int], bytes], target: BinaryIO, *, max_bytes: int) -> None:
    while chunk := read(min(_CHUNK_BYTES, max_bytes)):
        target.write(chunk)
        max_bytes -= len(chunk)
    target.flush()


def _shape(path: str, header: bytes, dimensions: int) -> tuple[int, ...]:
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise DataError(f"{path}: not an IDX file of unsigned bytes with {dimensions} dimension(s); export it again")
    return struct.unpack(f">{dimensions}I", header[4:])


def _check_size(path: str, shape: tuple[int, ...], *, following_bytes: int) -> None:
    """`following_bytes`: the bytes after the header; for a shortened copy of a file that is too long, one too many."""
    expected = math.prod(shape)
    announced = f"its header announces {'x'.join(map(str, shape))} = {expected:,} bytes"
    if following_bytes > expected:
        raise DataError(f"{path}: too long: {announced}, but more follow; download or export it again")
    if following_bytes < expected:
        raise DataError(f"{path}: truncated: {announced}, but {following_bytes:,} follow; download or export it again")
    if not expected:
        raise DataError(f"{path}: empty: {announced}; download or export it again")
