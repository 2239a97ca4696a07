"""Writes many small arrays as PNG files (ISO/IEC 15948), several times faster than image libraries do."""

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng  # four times as fast as zlib for 28x28 pixels

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE: Final = {1: 0, 3: 2}
_NO_FILTER, _UP = 0, 2


def encode_png(images: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    """[N, H, W, C] with C of 1 or 3 -> N files, each filtered with "none" or "up", whichever gives smaller values."""
    count, height_px, width_px, channels = images.shape
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    head, end = _SIGNATURE + _chunk(b"IHDR", header), _chunk(b"IEND", b"")
    plain = images.reshape(count, height_px, width_px * channels)
    above = plain.copy()
    above[:, 1:] -= plain[:, :-1]
    row_filter = np.where(2 * _magnitude(above) < _magnitude(plain), _UP, _NO_FILTER).astype(np.uint8)
    scanlines = np.empty((count, height_px, 1 + width_px * channels), np.uint8)
    scanlines[:, :, 0] = row_filter[:, None]
    scanlines[:, :, 1:] = np.where(row_filter[:, None, None] == _UP, above, plain)
    for lines in scanlines:
        yield head + _chunk(b"IDAT", zlib_ng.compress(lines.data, level=1)) + end


def encode_uncompressed(pixels: npt.NDArray[np.uint8]) -> bytes:
    """[H, W, C] with C of 1 or 3 -> a file that is fast to write and to decode."""
    height_px, width_px, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    scanlines = np.empty((height_px, 1 + width_px * channels), np.uint8)
    scanlines[:, 0] = _NO_FILTER
    scanlines[:, 1:] = pixels.reshape(height_px, -1)
    content = _chunk(b"IDAT", zlib_ng.compress(scanlines.data, level=0))
    return _SIGNATURE + _chunk(b"IHDR", header) + content + _chunk(b"IEND", b"")


def _magnitude(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Per image, the sum of its bytes read as absolute signed values: libpng's heuristic for choosing a filter."""
    return np.minimum(rows, np.uint8(0) - rows).sum(axis=(1, 2), dtype=np.int64)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib_ng.crc32(data, zlib_ng.crc32(kind)))
