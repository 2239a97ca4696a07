"""Decodes the samples of a TIFF page (TIFF 6.0) in their own type; Pillow reads only some types, and some wrongly."""

import io
import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from zlib_ng import zlib_ng

from images import tiff
from images.tiff import Page, values_of

_TYPES: Final = {1: "u", 2: "i", 3: "f"}
"""SampleFormat -> NumPy's kind."""
_NONE, _LZW, _PACK_BITS, _DEFLATE = 1, 5, 32773, (8, 32946)
_COMPRESSIONS: Final = (_NONE, _LZW, _PACK_BITS, *_DEFLATE)
_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3

Samples = npt.NDArray[Any]


def samples(content: bytes, page: Page) -> Samples:
    """All samples of a page, in this machine's byte order: [H, W, S]; neither turned nor inverted.

    Raises ValueError for a kind, layout or compression that is not supported, and for damaged files.
    """
    dtype = _type_of(content, page)
    (height_px,), (width_px,) = (values_of(content, page, tag) for tag in (tiff.HEIGHT, tiff.WIDTH))
    planes, in_plane = (page.samples, 1) if tiff.has_separate_planes(content, page) else (1, page.samples)
    is_tiled = tiff.TILES in page.layout
    (rows,) = values_of(content, page, *((tiff.TILE_HEIGHT,) if is_tiled else (tiff.ROWS_PER_STRIP, height_px)))
    columns = values_of(content, page, tiff.TILE_WIDTH)[0] if is_tiled else width_px
    rows = rows if is_tiled else min(rows, height_px)
    if not 0 < rows * columns <= 4 * max(height_px * width_px, 1 << 20):
        raise ValueError(f"its parts have {columns}x{rows} pixels")
    found = np.empty((planes, height_px, width_px, in_plane), dtype)
    parts = _parts(content, page, is_tiled)
    (predictor,) = values_of(content, page, tiff.PREDICTOR, 1) if page.compression != _NONE else (1,)
    for plane in found:
        for top in range(0, height_px, rows):
            kept = rows if is_tiled else min(rows, height_px - top)
            for left in range(0, width_px, columns):
                shape = kept, columns, in_plane
                plain = _decompressed(next(parts), kept, columns * in_plane * dtype.itemsize, page.compression)
                part = _undone(plain, shape, dtype, predictor)
                plane[top : top + rows, left : left + columns] = part[: height_px - top, : width_px - left]
    return np.moveaxis(found, 0, 2).reshape(height_px, width_px, page.samples)


def _type_of(content: bytes, page: Page) -> np.dtype[Any]:
    """The samples' type in the file's byte order."""
    kind, bits = _TYPES.get(page.sample_formats[0]), page.bits[0]
    is_known = kind is not None and bits in ((16, 32, 64) if kind == "f" else (8, 16, 32))
    if not is_known or len(set(page.bits)) > 1 or len(set(page.sample_formats)) > 1:
        raise ValueError("samples of this kind are not supported")
    if page.compression not in _COMPRESSIONS or values_of(content, page, tiff.FILL_ORDER, 1)[0] != 1:
        raise ValueError("this compression is not supported; save it without, or with LZW, Deflate or PackBits")
    return np.dtype(f"{'<' if content.startswith(b'II') else '>'}{kind}{bits // 8}")


def _parts(content: bytes, page: Page, is_tiled: bool) -> Iterator[bytes]:
    """The compressed bytes of each strip or tile. Raises ValueError after the last."""
    tags = (tiff.TILES, tiff.TILE_BYTES) if is_tiled else (tiff.STRIPS, tiff.STRIP_BYTES)
    for offset, count in zip(*(values_of(content, page, tag) for tag in tags), strict=False):
        yield content[offset : offset + count]
    raise ValueError("some of its pixels are missing")


def _undone(plain: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any], predictor: int) -> Samples:
    """The samples [rows, columns, S] of a decompressed strip or tile, without its predictor."""
    rows, columns, count = shape
    row_bytes = columns * count * dtype.itemsize
    if len(plain) < rows * row_bytes:
        raise ValueError("some of its pixels are missing")
    lines = np.frombuffer(plain, np.uint8)[: rows * row_bytes].reshape(rows, row_bytes)
    native = dtype.newbyteorder("=")
    if predictor == _FLOAT_DIFFERENCES and dtype.kind == "f":  # Adobe's Photoshop TIFF Technical Note 3
        planes = np.cumsum(lines.reshape(rows, -1, count), axis=1, dtype=np.uint8)
        planes = planes.reshape(rows, dtype.itemsize, columns * count).swapaxes(1, 2)
        return np.ascontiguousarray(planes).view(dtype.newbyteorder(">")).astype(native).reshape(shape)
    found = lines.view(dtype).astype(native).reshape(shape)
    if predictor == _DIFFERENCES:
        whole = np.dtype(f"u{dtype.itemsize}")
        return np.cumsum(found.view(whole), axis=1, dtype=whole).view(native)
    if predictor != 1:
        raise ValueError(f"its predictor {predictor} is not supported")
    return found


def _decompressed(data: bytes, rows: int, row_bytes: int, compression: int) -> bytes:
    if compression == _NONE:
        return data
    if compression in _DEFLATE:
        try:
            return zlib_ng.decompressobj().decompress(data, rows * row_bytes)
        except zlib_ng.error as error:  # type: ignore[misc]  # its stub says that it is no exception
            raise ValueError(f"its pixels are damaged: {error}") from None
    # As a strip of bytes, which Pillow decompresses with libtiff.
    entries = {256: row_bytes, 257: rows, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: rows, 279: len(data)}
    entries[273] = start = 8 + 2 + 12 * len(entries) + 4
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    file = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + data
    assert len(file) == start + len(data)
    return Image.open(io.BytesIO(file), formats=("TIFF",)).tobytes()
