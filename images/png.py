"""Writes many small arrays as PNG files (ISO/IEC 15948), several times faster than image libraries do."""

import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng  # four times as fast as zlib for 28x28 pixels

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE: Final = {1: 0, 2: 4, 3: 2, 4: 6}
_NO_FILTER, _UP = 0, 2
_NUMBER: Final = struct.Struct(">I").pack
_CRC_OF_NAME: Final = zlib_ng.crc32(b"IDAT")


def encode_png(images: npt.NDArray[Any]) -> Iterator[bytes]:
    """[N, H, W, C] of uint8 or uint16 -> N files, C: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.

    Each is filtered with "none" or "up", whichever gives smaller values.
    """
    head, end = _SIGNATURE + _header(images.shape[1:], images.dtype), _chunk(b"IEND", b"")
    plain = _bytes_of_rows(images)
    above = plain.copy()
    above[:, 1:] -= plain[:, :-1]
    row_filter = np.where(2 * _magnitude(above) < _magnitude(plain), _UP, _NO_FILTER).astype(np.uint8)
    scanlines = np.empty((*plain.shape[:2], 1 + plain.shape[2]), np.uint8)
    scanlines[:, :, 0] = row_filter[:, None]
    scanlines[:, :, 1:] = np.where(row_filter[:, None, None] == _UP, above, plain)
    for lines in scanlines:
        data = zlib_ng.compress(lines.data, level=1)
        size, checksum = _NUMBER(len(data)), _NUMBER(zlib_ng.crc32(data, _CRC_OF_NAME))
        yield b"".join((head, size, b"IDAT", data, checksum, end))


def encode_uncompressed(pixels: npt.NDArray[Any]) -> bytes:
    """[H, W, C], as in `encode_png`, -> a file that is fast to write and to decode."""
    [plain] = _bytes_of_rows(pixels[np.newaxis])
    scanlines = np.empty((len(plain), 1 + plain.shape[1]), np.uint8)
    scanlines[:, 0] = _NO_FILTER
    scanlines[:, 1:] = plain
    return png_of_scanlines(scanlines.data, pixels.shape, pixels.dtype)


def png_of_scanlines(
    scanlines: bytes | memoryview, shape: tuple[int, ...], dtype: npt.DTypeLike, *, is_interlaced: bool = False
) -> bytes:
    """The file of [H, W, C] pixels from its scanlines, each after the byte of its filter; not compressed."""
    content = _chunk(b"IDAT", zlib_ng.compress(scanlines, level=0))
    return _SIGNATURE + _header(shape, np.dtype(dtype), is_interlaced) + content + _chunk(b"IEND", b"")


def _header(shape: tuple[int, ...], dtype: np.dtype[Any], is_interlaced: bool = False) -> bytes:
    height_px, width_px, channels = shape
    colour = _COLOUR_TYPE[channels]
    return _chunk(
        b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, 8 * dtype.itemsize, colour, 0, 0, is_interlaced)
    )


def _bytes_of_rows(images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """[N, H, W, C] -> [N, H, bytes of a row], most significant bytes first."""
    big_endian = np.ascontiguousarray(images, images.dtype.newbyteorder(">"))
    return big_endian.view(np.uint8).reshape(*images.shape[:2], -1)


def _magnitude(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Per image, the sum of its bytes read as absolute signed values: libpng's heuristic for choosing a filter."""
    return np.minimum(rows, np.uint8(0) - rows).sum(axis=(1, 2), dtype=np.int64)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((_NUMBER(len(data)), kind, data, _NUMBER(zlib_ng.crc32(data, zlib_ng.crc32(kind)))))
