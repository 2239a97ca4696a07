"""`numpy`: an array of images in a .npy file, or one or more arrays, optionally with labels, in an .npz file.

Rows are streamed from their offset (NEP 1 specifies the layout), so memory stays at about a megabyte for any array,
compressed or not. Pickled objects are never loaded.
"""

import contextlib
import io
import math
import struct
import tokenize
import urllib.parse
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from components.settings import DataSettings
from components.sources.files import DataError, SourceFiles, require_file
from components.sources.plan import Reject, SourceImage, SourcePlan, row_ranges, rows_per_batch
from images.formats import MAX_PIXELS, MAX_SIDE_PX
from images.reading import EIGHT_BITS, Reading
from images.stored import StoredImage, from_pixels_of_many
from runtime.object_store import AnyPath, as_path
from schema.features import EVAL, TEST, TRAIN


class _Names(NamedTuple):
    """Names of an array of images and of its optional labels, and their split."""

    images: str
    labels: str
    named_split: str | None


_KNOWN_NAMES: Final = (
    _Names("images", "labels", None),
    _Names("x", "y", None),
    # Keras
    _Names("x_train", "y_train", TRAIN),
    _Names("x_val", "y_val", EVAL),
    _Names("x_valid", "y_valid", EVAL),
    _Names("x_test", "y_test", TEST),
    # MedMNIST
    _Names("train_images", "train_labels", TRAIN),
    _Names("val_images", "val_labels", EVAL),
    _Names("test_images", "test_labels", TEST),
)
_ROUNDING, _ROUNDING_HALF = 1e-5, 1e-3
"""How far computed floats, and those of 16 bits, may lie outside [0, 1]."""
_MAX_HEADER_BYTES: Final = 1 << 16
_npy: Any = np.lib.format  # untyped
# NumPy evaluates the header as a Python literal and does not catch what that raises.
_MALFORMED: Final = (
    ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError, tokenize.TokenError,
)  # fmt: skip
_ZIP_MAGIC: Final = b"PK"
# What zipfile raises for malformed archives besides its own BadZipFile.
_DAMAGED: Final = (
    OSError, EOFError, zlib.error, struct.error, zipfile.BadZipFile, RuntimeError, ValueError, LookupError,
    ArithmeticError,
)  # fmt: skip


@dataclass(frozen=True)
class StoredArray:
    """An array in C order whose data starts at `offset` of a .npy file or of a member of an .npz file."""

    path: str
    member: str | None
    shape: tuple[int, ...]
    dtype: str
    offset: int

    def batches(self, start: int, stop: int) -> Iterator[npt.NDArray[Any]]:
        """Rows [start, stop) along the first axis, in batches. Raises DataError if the file ends early."""
        dtype, row_shape = np.dtype(self.dtype), self.shape[1:]
        row_bytes = dtype.itemsize * math.prod(row_shape)
        with _opened(self.path, self.member) as stream:
            stream.seek(self.offset + start * row_bytes)
            for row in range(start, stop, rows_per_batch(row_bytes)):
                wanted_bytes = row_bytes * min(rows_per_batch(row_bytes), stop - row)
                content = stream.read(wanted_bytes)
                if len(content) < wanted_bytes:
                    raise DataError(
                        f"{self.path}: ended at row {row + len(content) // row_bytes}; save or fetch it again"
                    )
                yield np.frombuffer(content, dtype).reshape(-1, *row_shape)


@dataclass(frozen=True)
class NumpyShard:
    """Rows [start, stop) of an array of images and its labels."""

    images: StoredArray
    labels: StoredArray | None
    named_split: str | None
    start: int
    stop: int
    reading: Reading = EIGHT_BITS

    def read(self) -> Iterator[SourceImage | Reject]:
        name = urllib.parse.quote(as_path(self.images.path).name)
        stem = f"{name}/{self.images.member.removesuffix('.npy')}" if self.images.member else name
        for row, image, label in zip(range(self.start, self.stop), self._images(), self._labels(), strict=True):
            image_id = f"{stem}/{row:07d}"
            if isinstance(image, StoredImage):
                yield SourceImage(image_id, label, self.named_split, None, image)
            else:
                yield Reject(image_id, image)

    def _images(self) -> Iterator[StoredImage | str]:
        """Each row's image, or the reason to reject it."""
        for batch in self.images.batches(self.start, self.stop):
            if batch.dtype.kind == "u":
                yield from from_pixels_of_many(batch.astype(batch.dtype.newbyteorder("=")), self.reading)
                continue
            values = batch.reshape(len(batch), -1)
            lows, highs = values.min(axis=1), values.max(axis=1)
            tolerance = _ROUNDING_HALF if batch.dtype.itemsize == 2 else _ROUNDING
            is_usable = (lows >= -tolerance) & (highs <= 1.0 + tolerance)  # False for NaN
            levels = np.uint16 if self.reading.depth == 16 else np.uint8
            shares = batch[is_usable].astype(np.float32).clip(0.0, 1.0)
            usable = np.round(shares * np.float32(np.iinfo(levels).max)).astype(levels)
            images = from_pixels_of_many(usable, self.reading)
            for row, low, high in zip(is_usable, lows, highs, strict=True):
                yield next(images) if row else f"values from {low:.9g} to {high:.9g}; floats must be in [0, 1]"

    def _labels(self) -> Iterator[str]:
        if self.labels is None:
            yield from [""] * (self.stop - self.start)
            return
        for batch in self.labels.batches(self.start, self.stop):
            for label in batch.reshape(-1):
                yield label.decode("utf-8", "surrogateescape") if isinstance(label, bytes) else str(label)


def plan_numpy(settings: DataSettings, reading: Reading = EIGHT_BITS) -> SourcePlan:
    """The arrays in data.path; reads only their headers.

    Images are [N, H, W], [N, H, W, 1] or [N, H, W, 3], of uint8, of uint16 at a depth of 16, or of floats in [0, 1];
    labels are [N] or [N, 1], of integers or strings. Raises DataError for anything else.
    """
    path = as_path(settings.path or "")
    require_file(path, kind="the .npy or .npz file")
    shards: list[NumpyShard] = []
    for images, labels, named_split in _arrays(path, reading):
        rows = min(images.shape[0], settings.max_images or images.shape[0])
        ranges = row_ranges(rows, settings.images_per_shard)
        shards += [NumpyShard(images, labels, named_split, start, stop, reading) for start, stop in ranges]
    count = sum(shard.stop - shard.start for shard in shards)
    has_named_eval = any(shard.named_split == EVAL for shard in shards)
    return SourcePlan.of_files(SourceFiles(path.parent, (path.name,)), shards, count, has_named_eval)


def _arrays(path: AnyPath, reading: Reading) -> Iterator[tuple[StoredArray, StoredArray | None, str | None]]:
    with path.open("rb") as file:
        is_archive = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    if not is_archive:
        yield _checked_images(_read_header(path, None), reading), None, None
        return
    with _damage_named(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = set(archive.namelist())
    known = [names for names in _KNOWN_NAMES if f"{names.images}.npy" in members]
    if not known:
        held = ", ".join(sorted(name.removesuffix(".npy") for name in members)) or "nothing"
        raise DataError(
            f"{path}: no array has a known name; found {held}; known are "
            f"{', '.join(names.images for names in _KNOWN_NAMES)}"
        )
    for names in known:
        images = _checked_images(_read_header(path, f"{names.images}.npy"), reading)
        labels = None
        if f"{names.labels}.npy" in members:
            labels = _checked_labels(_read_header(path, f"{names.labels}.npy"), images)
        yield images, labels, names.named_split


def _read_header(path: AnyPath, member: str | None) -> StoredArray:
    """Shape, type and offset, checked against the size of the file or archive member."""
    with _opened(str(path), member) as stream:
        head = io.BytesIO(stream.read(_MAX_HEADER_BYTES))
    name = f"{path}: {member}" if member else str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers written by Python 2
            version = _npy.read_magic(head)
            read_header = _npy.read_array_header_1_0 if version == (1, 0) else _npy.read_array_header_2_0
            shape, fortran_order, dtype = read_header(head)
    except _MALFORMED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name}: not a .npy array: {reason}; save it with numpy.save") from None
    if dtype.hasobject:
        raise DataError(f"{name}: contains Python objects, which are never loaded; save an array of numbers")
    if fortran_order:
        raise DataError(f"{name}: stored in column-major (Fortran) order; save numpy.ascontiguousarray of it")
    if not shape or min(shape) < 1 or not dtype.itemsize:
        raise DataError(f"{name}: empty: its shape is {shape}; save an array with images")
    _check_size(name, path, member, expected_bytes=head.tell() + dtype.itemsize * math.prod(shape))
    lengths = tuple(int(length) for length in shape)  # NumPy's reader lets True pass as a length
    return StoredArray(str(path), member, lengths, dtype.str, head.tell())


def _check_size(name: str, path: AnyPath, member: str | None, *, expected_bytes: int) -> None:
    with _damage_named(path):
        if member:
            with path.open("rb") as file, zipfile.ZipFile(file) as archive:
                actual_bytes = archive.getinfo(member).file_size
        else:
            actual_bytes = path.stat().st_size
    if actual_bytes != expected_bytes:
        state = "truncated" if actual_bytes < expected_bytes else "too long"
        raise DataError(f"{name}: {state}: {actual_bytes:,} of {expected_bytes:,} bytes; save or fetch it again")


def _checked_images(array: StoredArray, reading: Reading) -> StoredArray:
    name, dtype, shape = f"{array.path}: {array.member}" if array.member else array.path, array.dtype, array.shape
    is_wide = np.dtype(dtype).kind == "u" and np.dtype(dtype).itemsize == 2
    if np.dtype(dtype) != np.uint8 and np.dtype(dtype).kind != "f" and not (is_wide and reading.depth == 16):
        remedy = "set image.depth: 16, or save" if is_wide else "save"
        raise DataError(f"{name}: has type {np.dtype(dtype)}; {remedy} uint8, or floats in [0, 1]")
    if len(shape) == 3 and shape[2] == 3:  # no image is so narrow
        array, shape = replace(array, shape=(1, *shape)), (1, *shape)
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise DataError(
            f"{name}: has shape {shape}; images are [N, H, W], [N, H, W, 1] or [N, H, W, 3], or one [H, W, 3]"
        )
    if shape[1] * shape[2] > MAX_PIXELS:
        raise DataError(f"{name}: images of {shape[1]}x{shape[2]} pixels, more than {MAX_PIXELS:,}; scale them down")
    if max(shape[1:3]) > MAX_SIDE_PX:
        raise DataError(f"{name}: images of {shape[1]}x{shape[2]}; a side has at most {MAX_SIDE_PX:,} pixels; cut them")
    return array


def _checked_labels(labels: StoredArray, images: StoredArray) -> StoredArray:
    name = f"{labels.path}: {labels.member}"
    if np.dtype(labels.dtype).kind not in "buiSU" or math.prod(labels.shape) != labels.shape[0]:
        raise DataError(
            f"{name}: has type {np.dtype(labels.dtype)} and shape {labels.shape}; "
            "labels are [N] or [N, 1], of integers or strings"
        )
    if labels.shape[0] != images.shape[0]:
        raise DataError(
            f"{name}: has {labels.shape[0]:,} labels for the {images.shape[0]:,} images of {images.member}; "
            "save one label per image"
        )
    return labels


@contextlib.contextmanager
def _opened(path: str, member: str | None) -> Iterator[BinaryIO]:
    with _damage_named(as_path(path)), contextlib.ExitStack() as stack:
        if member is None:
            yield stack.enter_context(as_path(path).open("rb"))
        else:
            stream = stack.enter_context(as_path(path).open("rb"))
            archive = stack.enter_context(zipfile.ZipFile(stream))
            yield cast(BinaryIO, stack.enter_context(archive.open(member)))


@contextlib.contextmanager
def _damage_named(path: AnyPath) -> Iterator[None]:
    """Turns the errors of a damaged file or archive into a DataError that names it."""
    try:
        yield
    except _DAMAGED as error:
        raise DataError(f"{path}: damaged: {error}; save or fetch it again") from None
