"""Serializes an image as the tf.Example that `schema/schema.pbtxt` describes.

Writes the bytes directly (https://protobuf.dev/programming-guides/encoding), because building a tf.train.Example in
Python takes longer than everything else that is done to a small image. Features are sorted by name, so
that an image has the same bytes in every process.
"""

import functools
import re
import struct
from typing import Final

from components.sources.plan import SourceImage
from schema import features

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
"""Field numbers of tf.train.Feature."""
_SHORT: Final = 128
"""Smaller lengths and numbers take one byte."""
_FLOAT: Final = struct.Struct("<f").pack
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def serialize(image: SourceImage) -> bytes:
    """A tf.train.Example, its features sorted by name."""
    stored = image.stored
    to_contrast, to_image, to_mask, to_mean, to_end = _shared_parts(
        stored.channels, image.group, stored.height_px, image.is_anomaly, image.label, stored.width_px
    )
    image_id = image.image_id.encode()
    parts = (
        to_contrast,
        _FLOAT(stored.contrast),
        to_image,
        _bytes_head(features.IMAGE, len(stored.encoded)),
        stored.encoded,
        _bytes_head(features.IMAGE_ID, len(image_id)),
        image_id,
        to_mask,
        b"" if image.mask is None else _bytes(features.MASK, image.mask),
        to_mean,
        _FLOAT(stored.mean_intensity),
        to_end,
    )
    features_bytes = b"".join(parts)
    return _features_head(len(features_bytes)) + features_bytes


@functools.lru_cache(maxsize=10_000)
def _features_head(length: int) -> bytes:
    """The start of an example whose features take so many bytes."""
    return bytes((1 << 3 | 2,)) + _varint(length)


@functools.lru_cache(maxsize=1000)
def _shared_parts(
    channels: int, group: str, height_px: int, is_anomaly: int | None, label: str, width_px: int
) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """What many images share: up to the contrast's value, the image, the mask, the mean's value, and the end."""
    return (
        _int(features.CHANNELS, channels) + _float_prefix(features.CONTRAST),
        (_text(features.GROUP, group) if group else b"") + _int(features.HEIGHT_PX, height_px),
        (b"" if is_anomaly is None else _int(features.IS_ANOMALY, is_anomaly)) + _text(features.LABEL, label),
        _float_prefix(features.MEAN_INTENSITY),
        _int(features.WIDTH_PX, width_px),
    )


def _bytes(name: str, value: bytes) -> bytes:
    return _bytes_head(name, len(value)) + value


@functools.lru_cache(maxsize=10_000)
def _bytes_head(name: str, length: int) -> bytes:
    """The part of an entry before its value of `length` bytes, which comes last."""
    entry = _entry(name, _field(_BYTES_LIST, _field(1, bytes(length))))
    return entry[: len(entry) - length]


def _text(name: str, value: str) -> bytes:
    """Replaces bytes that are not UTF-8, as in some folder names, by U+FFFD, because TFMA reads labels as UTF-8."""
    return _bytes(name, _SURROGATE.sub("\ufffd", value).encode())


def _int(name: str, value: int) -> bytes:
    return _entry(name, _field(_INT64_LIST, _field(1, _varint(value))))


def _float_prefix(name: str) -> bytes:
    """The part of an entry before its value of four bytes, which comes last."""
    return _entry(name, _field(_FLOAT_LIST, _field(1, bytes(4))))[:-4]


def _entry(name: str, feature: bytes) -> bytes:
    """An entry of the map from feature names to features."""
    return _field(1, _field(1, name.encode()) + _field(2, feature))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field (wire type 2)."""
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A non-negative number in base 128, least significant group first."""
    if value < _SHORT:
        return bytes((value,))
    low = bytearray()
    while value >= _SHORT:
        low.append(value & 0x7F | 0x80)
        value >>= 7
    low.append(value)
    return bytes(low)
