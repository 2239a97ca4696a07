"""`tfrecord`: TFRecord files, optionally gzipped, of tf.Examples that hold encoded images.

A record consists of its length (8 bytes, little endian), the checksum of the length, the data, and the checksum of the
data; checksums are masked CRC-32C (tensorflow/core/lib/io/record_writer.h).
"""

import contextlib
import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import google_crc32c

from components.settings import DataSettings
from components.sources.files import DataError, Links, SourceFiles, read_ahead
from components.sources.plan import SPLIT_OF_NAME, Reject, SourceImage, SourcePlan
from images.decoding import UnreadableImageError
from images.reading import EIGHT_BITS, Reading
from images.stored import StoredImage, StoredMask, from_file_bytes, mask_from_file_bytes
from runtime.gzip_streams import DAMAGED, GZIP_MAGIC, inflated, is_zlib, unzipped
from runtime.object_store import AnyPath, as_path
from schema import features
from schema.features import EVAL, TRAIN

_IMAGE_FEATURES: Final = ("image", "image/encoded")
_LABEL_FEATURES: Final = ("label", "image/class/label")
_FILE_NAME: Final = re.compile(r"tfrec|-\d{5}-of-\d{5}")
_WORD: Final = re.compile(r"[a-z]+")
_OTHER_SUFFIXES: Final = (".index", ".idx", ".json", ".txt", ".pbtxt", ".csv", ".yaml")
"""Of files that other programs write beside the records."""
_NORMALITY: Final = {"0": 0, "1": 1, "false": 0, "true": 1}
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
MAX_RECORD_BYTES: Final = 1 << 30
"""Longer records are rejected before they are read."""


class _BrokenFramingError(Exception):
    """The boundaries of the file's remaining records are unknown; the message is the reason."""


@dataclass(frozen=True)
class TfrecordShard:
    """Records [start, stop) of one file; the first begins at byte `offset` of the uncompressed file."""

    folder: str
    relative_path: str
    named_split: str | None
    start: int
    stop: int
    offset: int
    image_features: tuple[str, ...]
    label_features: tuple[str, ...]
    is_label_required: bool
    reading: Reading = EIGHT_BITS
    workers: int | None = None

    def read(self) -> Iterator[SourceImage | Reject]:
        path = as_path(self.folder) / self.relative_path
        stem = urllib.parse.quote(os.fsencode(self.relative_path))
        try:
            with _opened(path) as stream:
                stream.seek(self.offset)
                records = ((f"{stem}/{row:07d}", _record(stream)) for row in range(self.start, self.stop))
                yield from read_ahead(self._image, records, as_path(self.folder), workers=self.workers)
        except (_BrokenFramingError, *DAMAGED) as error:
            raise DataError(f"{path}: changed while it was being read: {error}; run again") from None

    def _image(self, item: tuple[str, bytes | UnreadableImageError]) -> SourceImage | Reject:
        image_id, record = item
        try:
            example = _parse(record)
            stored = from_file_bytes(_image_bytes(example, self.image_features), self.reading)
            mask = _mask(example, stored)
            label = _label(example, self.label_features, is_required=self.is_label_required)
            is_anomaly = _is_anomaly(example)
            group = _text(example, features.GROUP)
        except UnreadableImageError as error:
            return Reject(image_id, str(error))
        return SourceImage(
            image_id,
            label,
            self.named_split,
            is_anomaly,
            stored,
            mask and mask.encoded,
            mask is not None and mask.has_many_intermediate_values,
            group,
        )


def plan_tfrecord(settings: DataSettings, reading: Reading = EIGHT_BITS) -> SourcePlan:
    """The records in data.path, a file or a folder of files; counts them by reading only their lengths.

    Raises DataError if there are none, and for a file that is truncated or not a TFRecord file.
    """
    path = as_path(settings.path or "")
    folder, relative_paths = _list_files(path, settings)
    image_features = (settings.image_feature,) if settings.image_feature else _IMAGE_FEATURES
    label_features = (settings.label_feature,) if settings.label_feature else _LABEL_FEATURES
    shards: list[TfrecordShard] = []
    splits = _named_splits(relative_paths)
    is_label_required = settings.label_feature is not None
    for relative_path in relative_paths:
        place = (str(folder), relative_path, splits[relative_path])
        names = (image_features, label_features, is_label_required)
        ranges = _record_ranges(folder / relative_path, settings)
        shards += [TfrecordShard(*place, *record_range, *names, reading, settings.workers) for record_range in ranges]
    if not shards:
        raise DataError(f"{path}: contains no records; set data.path to TFRecord files with images")
    count = sum(shard.stop - shard.start for shard in shards)
    has_named_eval = any(shard.named_split == EVAL for shard in shards)
    return SourcePlan.of_files(SourceFiles(folder, tuple(relative_paths)), shards, count, has_named_eval)


def _list_files(path: AnyPath, settings: DataSettings) -> tuple[AnyPath, list[str]]:
    """The folder and the sorted relative paths of its TFRecord files. Raises DataError for links outside it."""
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; set data.path to a TFRecord file or a folder of them")
    if isinstance(path, Path):
        found = (str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    else:
        found = (relative_path for relative_path, _ in path.files_below())
    relative_paths = sorted(filter(_is_record_file, found))
    if not relative_paths:
        raise DataError(f"{path}: contains no TFRecord files (names that contain 'tfrec' or end in -00000-of-00001)")
    links = Links(path, follow_links=settings.follow_links)
    for relative_path in relative_paths:
        links.require_inside(path / relative_path)
    return path, relative_paths


def _is_record_file(relative_path: str) -> bool:
    name = Path(relative_path).name
    return bool(_FILE_NAME.search(name)) and not name.startswith(".") and Path(name).suffix not in _OTHER_SUFFIXES


def _named_splits(relative_paths: list[str]) -> dict[str, str | None]:
    """The split of each file: that of its first folder, or else the one in its name if some file is named for `train`.

    Folders are named `train` or, in TFX's layout, `Split-train`; files `mnist-train.tfrecord-00000-of-00001` (TFDS).
    """
    by_folder, by_name = {}, {}
    for path in relative_paths:
        first, *rest = Path(path).parts
        by_folder[path] = SPLIT_OF_NAME.get(first.lower().removeprefix("split-")) if rest else None
        words = _WORD.findall(Path(path).name.lower())
        by_name[path] = next((SPLIT_OF_NAME[word] for word in reversed(words) if word in SPLIT_OF_NAME), None)
    return by_folder if any(by_folder.values()) or TRAIN not in by_name.values() else by_name


def _record_ranges(path: AnyPath, settings: DataSettings) -> Iterator[tuple[int, int, int]]:
    """(start, stop, offset of start) of each shard of a file. Raises DataError if its framing is broken."""
    start, start_offset, row, offset = 0, 0, 0, 0
    try:
        with _opened(path) as stream:
            while row != settings.max_images and (record_bytes := _skip_record(stream, offset)):
                row, offset = row + 1, offset + record_bytes
                if row - start == settings.images_per_shard:
                    yield start, row, start_offset
                    start, start_offset = row, offset
    except (_BrokenFramingError, *DAMAGED) as error:
        raise DataError(f"{path}: record {row} at byte {offset:,}: {error}; write or fetch the file again") from None
    if row > start:
        yield start, row, start_offset


@contextlib.contextmanager
def _opened(path: AnyPath) -> Iterator[BinaryIO]:
    """The file, unzipped if it is gzip or zlib; a plain file may begin with the same bytes, as a length."""
    with path.open("rb") as stream:
        head = stream.read(_LENGTH_BYTES + _CHECKSUM_BYTES)
        stream.seek(0)
        is_plain = len(head) == 12 and _checksum(head[:8]) == head[8:]
        if is_plain or not (head.startswith(GZIP_MAGIC) or is_zlib(head)):
            yield stream
            return
        with unzipped(stream) if head.startswith(GZIP_MAGIC) else inflated(stream) as content:
            yield content


def _skip_record(stream: BinaryIO, offset: int) -> int:
    """Size in bytes of the record at `offset`, the current position of the stream; 0 at the end of the file."""
    length = _read_length(stream)
    if length is None:
        return 0
    record_bytes = _LENGTH_BYTES + _CHECKSUM_BYTES + length + _CHECKSUM_BYTES
    if offset + record_bytes >= 1 << 63:
        raise _BrokenFramingError(f"claims to have {length:,} bytes")
    stream.seek(offset + record_bytes - _CHECKSUM_BYTES)
    if len(stream.read(_CHECKSUM_BYTES)) < _CHECKSUM_BYTES:
        raise _BrokenFramingError(f"is truncated: its length says {length:,} bytes")
    return record_bytes


def _read_length(stream: BinaryIO) -> int | None:
    head = stream.read(_LENGTH_BYTES + _CHECKSUM_BYTES)
    if not head:
        return None
    if len(head) < _LENGTH_BYTES + _CHECKSUM_BYTES:
        raise _BrokenFramingError("is truncated within its length field")
    if _checksum(head[:_LENGTH_BYTES]) != head[_LENGTH_BYTES:]:
        raise _BrokenFramingError("its length has a wrong checksum: the file is damaged or not a TFRecord file")
    return int.from_bytes(head[:_LENGTH_BYTES], "little")


def _read_record(stream: BinaryIO) -> bytes:
    """The next record's data. Raises UnreadableImageError, and skips the record, if it is too long or damaged."""
    length = _read_length(stream)
    if length is None:
        raise _BrokenFramingError("the file ended early")
    if length > MAX_RECORD_BYTES:
        stream.seek(length + _CHECKSUM_BYTES, os.SEEK_CUR)
        raise UnreadableImageError(f"the record has {length:,} bytes, more than {MAX_RECORD_BYTES:,}")
    data, checksum = stream.read(length), stream.read(_CHECKSUM_BYTES)
    if len(checksum) < _CHECKSUM_BYTES:
        raise _BrokenFramingError("the file ended early")
    if _checksum(data) != checksum:
        raise UnreadableImageError("the record is damaged: its checksum is wrong")
    return data


def _checksum(data: bytes) -> bytes:
    crc = int(google_crc32c.value(data))
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(_CHECKSUM_BYTES, "little")


def _record(stream: BinaryIO) -> bytes | UnreadableImageError:
    """The next record, or why it cannot be used."""
    try:
        return _read_record(stream)
    except UnreadableImageError as error:
        return error


def _parse(record: bytes | UnreadableImageError) -> Any:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    if isinstance(record, UnreadableImageError):
        raise record
    try:
        return tf.train.Example.FromString(record).features.feature
    except DecodeError:
        raise UnreadableImageError("the record is not a tf.Example") from None


def _image_bytes(feature: Any, names: tuple[str, ...]) -> bytes:
    for name in names:
        if name in feature and len(feature[name].bytes_list.value) == 1:
            return bytes(feature[name].bytes_list.value[0])
    held = ", ".join(_described(name, feature[name]) for name in sorted(feature)[:10]) or "nothing"
    raise UnreadableImageError(
        f"the record has no encoded image in {' or '.join(names)}; found {held}; set data.image_feature"
    )


def _described(name: str, feature: Any) -> str:
    """The feature's name, and what it holds if that is not one value of bytes."""
    kind = feature.WhichOneof("kind")
    count = len(getattr(feature, kind).value) if kind else 0
    values = {"bytes_list": "strings", "int64_list": "integers", "float_list": "floats", None: "values"}[kind]
    return name if (kind, count) == ("bytes_list", 1) else f"{name} ({count:,} {values})"


def _only_value(feature: Any, name: str) -> bytes | int | float | None:
    """The only value of a feature; None if the feature is absent or empty. Raises UnreadableImageError for several."""
    kind = feature[name].WhichOneof("kind") if name in feature else None
    values = getattr(feature[name], kind).value if kind else []
    if len(values) > 1:
        raise UnreadableImageError(f"the feature {_described(name, feature[name])} should have one value")
    return values[0] if values else None


def _label(feature: Any, names: tuple[str, ...], *, is_required: bool) -> str:
    """The label as text; it may be empty, unless it is required."""
    name = next((name for name in names if name in feature), names[0])
    if is_required and _only_value(feature, name) is None:
        held = ", ".join(sorted(feature)[:10])
        raise UnreadableImageError(f"the record has no label in {names[0]}; found {held}; set data.label_feature")
    return _text(feature, name)


def _text(feature: Any, name: str) -> str:
    """A feature that holds a string or a whole number of any type, as text; empty if it is absent."""
    value = _only_value(feature, name)
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float) and not value.is_integer():
        raise UnreadableImageError(f"the feature {name} is {value:g}; labels and groups are strings or whole numbers")
    return str(int(value))


def _is_anomaly(feature: Any) -> int | None:
    """The feature `is_anomaly`, as in our own examples, or as another unambiguous type; None if it is absent."""
    value = _only_value(feature, features.IS_ANOMALY)
    if value is None:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else f"{value:g}"
    if text.strip().lower() not in _NORMALITY:
        raise UnreadableImageError(f"the feature {features.IS_ANOMALY} is {text!r}; it must be 0 or 1")
    return _NORMALITY[text.strip().lower()]


def _mask(feature: Any, stored: StoredImage) -> StoredMask | None:
    """The feature `mask`, as in our own examples."""
    content = _only_value(feature, features.MASK)
    if content is None:
        return None
    if not isinstance(content, bytes):
        raise UnreadableImageError(f"the feature {_described(features.MASK, feature[features.MASK])} is no image file")
    try:
        return mask_from_file_bytes(content, height_px=stored.height_px, width_px=stored.width_px)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"its mask: {error}") from None
