"""Reads the chunks of a PNG file (ISO/IEC 15948) without decoding its pixels."""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from zlib_ng import zlib_ng

from images.formats import MAX_PIXELS, MAX_SIDE_PX

PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_CRITICAL: Final = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_ORIENTATION: Final = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_ORIENTATION_KEYWORDS: Final = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
_MAX_ORIENTATION_BYTES: Final = 1 << 20
_MAX_ANCILLARY: Final = 100
_MAX_CHUNKS: Final = 200_000
_PLAIN_HEADER: Final = {
    8: {b"\x08\0\0\0\0": 1, b"\x08\x02\0\0\0": 3},
    16: {b"\x10\0\0\0\0": 2, b"\x10\x02\0\0\0": 6},
}
"""Depth -> its grey and RGB headers (depth, colour type, compression, filter, interlacing) -> bytes of a pixel."""
_LAST_FILTER: Final = 4


class Chunk(NamedTuple):
    """One chunk; `whole` includes its length and checksum."""

    kind: bytes
    data: memoryview
    whole: memoryview
    is_intact: bool


def chunks_of(content: bytes) -> Iterator[Chunk]:
    """The chunks up to IEND; a truncated chunk comes last, with the data that are left."""
    view, start = memoryview(content), len(PNG_START)
    for _ in range(_MAX_CHUNKS):
        if len(content) < start + 8:
            return
        (length,) = struct.unpack_from(">I", content, start)
        kind, end = content[start + 4 : start + 8], start + 12 + length
        data = view[start + 8 : end - 4]
        checksum = zlib_ng.crc32(view[start + 4 : end - 4])
        yield Chunk(kind, data, view[start:end], content[end - 4 : end] == struct.pack(">I", checksum))
        if kind == b"IEND":
            return
        start = end


def may_be_turned(content: bytes) -> bool:
    """Whether the file may have an orientation other than upright: not if it is a PNG file without EXIF and XMP.

    Otherwise a PNG file must be decoded to find out, because they may come after its pixels.
    """
    return not content.startswith(PNG_START) or any(map(_may_orient, chunks_of(content)))


def with_orientation(content: bytes) -> bytes:
    """The file without chunks that do not affect what it shows; damaged ancillary chunks are dropped, too."""
    kept = [chunk.whole for chunk in chunks_of(content) if _is_needed(chunk) or _may_orient(chunk)]
    return b"".join((PNG_START, *kept))


def without_orientation(content: bytes) -> bytes:
    """The same without EXIF and XMP."""
    return b"".join((PNG_START, *(chunk.whole for chunk in chunks_of(content) if _is_needed(chunk))))


class Scanlines(NamedTuple):
    """Filtered rows of pixels, each after the byte of its filter."""

    lines: bytes
    height_px: int
    width_px: int
    channels: int
    depth: int


def is_plain_png(content: bytes, *, depth: int = 8) -> bool:
    """Whether the file has `plain_scanlines`."""
    return plain_scanlines(content, depth=depth) is not None


def plain_scanlines(content: bytes, *, depth: int = 8) -> Scanlines | None:
    """The rows of a file that every decoder reads as the same upright grey or RGB pixels: it is intact, without extras.

    The pixels have 8 bits or, for a `depth` of 16, 8 or 16. Verifies checksums and decompresses the pixels, so the
    result is None for every file that cannot be read.
    """
    if not content.startswith(PNG_START):
        return None
    pixel_bytes = _PLAIN_HEADER[8].get(content[24:29]) or _PLAIN_HEADER[depth].get(content[24:29])
    if pixel_bytes is None or content[8:16] != b"\0\0\0\x0dIHDR":
        return None
    pixel_data: list[memoryview] = []
    others, last, end = 0, b"", len(PNG_START)
    for chunk in chunks_of(content):
        if not (chunk.is_intact and chunk.kind.isalpha()) or chunk.kind == b"tRNS" or _may_orient(chunk):
            return None
        if chunk.kind == b"IDAT" and (not pixel_data or last == b"IDAT"):
            pixel_data.append(chunk.data)
        elif chunk.kind[:1].islower():
            others += 1
        elif chunk.kind != {b"": b"IHDR"}.get(last, b"IEND"):
            return None
        last, end = chunk.kind, end + len(chunk.whole)
    if last != b"IEND" or end != len(content) or others > _MAX_ANCILLARY:
        return None
    width_px, height_px = struct.unpack_from(">II", content, 16)
    lines = _complete_lines(pixel_data, width_px, height_px, pixel_bytes)
    depth = content[24]
    return None if lines is None else Scanlines(lines, height_px, width_px, pixel_bytes * 8 // depth, depth)


def _complete_lines(pixel_data: list[memoryview], width_px: int, height_px: int, pixel_bytes: int) -> bytes | None:
    if not 0 < max(width_px, height_px) <= MAX_SIDE_PX or not 0 < width_px * height_px <= MAX_PIXELS:
        return None
    row_bytes = 1 + width_px * pixel_bytes
    stream = zlib_ng.decompressobj()
    try:
        lines = stream.decompress(b"".join(pixel_data), height_px * row_bytes + 1)
    except zlib_ng.error:  # type: ignore[misc]  # its stub says that it is no exception
        return None
    if not stream.eof or stream.unused_data or len(lines) != height_px * row_bytes:
        return None
    has_known_filters = int(np.frombuffer(lines, np.uint8)[::row_bytes].max()) <= _LAST_FILTER
    return lines if has_known_filters else None


def _is_needed(chunk: Chunk) -> bool:
    return chunk.kind in _CRITICAL or (chunk.kind == b"tRNS" and chunk.is_intact)


def _may_orient(chunk: Chunk) -> bool:
    if chunk.kind not in _ORIENTATION or not chunk.is_intact or len(chunk.data) > _MAX_ORIENTATION_BYTES:
        return False
    return chunk.kind == b"eXIf" or bytes(chunk.data[:32]).startswith(_ORIENTATION_KEYWORDS)
