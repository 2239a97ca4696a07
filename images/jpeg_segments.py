"""Limits what a JPEG file (ITU-T T.81) may hold before and between its pixels, without decoding it."""

import re
from typing import Final

from runtime.errors import UserError

JPEG_START: Final = b"\xff\xd8"
MAX_SEGMENTS: Final = 10_000
MAX_FILL_BYTES: Final = 1 << 16
MAX_SCANS: Final = 100
"""A progressive file has about ten; each takes as long as decoding the whole image."""
_START_OF_SCAN: Final = b"\xff\xda"
_END: Final = 0xD9
_ORDINARY: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE})
"""Baseline, extended and progressive frames, tables, scans, applications' segments, and comments."""
_MARKER: Final = re.compile(rb"\xff[^\0\xd0-\xd7]")
"""Within a scan, 0xFF is followed by 0 or the number of a restart."""
_START_OF_FRAME: Final = (0xC0, 0xC1, 0xC2)
_TABLES: Final = 0xDB
_TABLE_BYTES: Final = 65
"""Of a quantization table with 8-bit values, and its number."""
_JFIF, _JFIF_BYTES = 0xE0, 16
_WITHOUT_EFFECT: Final = frozenset({0xC4, 0xDA, 0xDD, 0xFE})
"""Ordinary segments that tell nothing about what the file shows: codes, scans, restarts and comments."""
_WITHOUT_LENGTH: Final = (0x01, *range(0xD0, 0xD9))


class ExcessiveJpegError(UserError):
    """Reading the file would take far longer than its pixels justify."""


def require_moderate(content: bytes) -> None:
    """Raise ExcessiveJpegError for too many segments, fill bytes or scans."""
    at, segments, fill_bytes = len(JPEG_START), 0, 0
    while at + 4 <= len(content) and content[at] == 0xFF:
        if content[at + 1] == 0xFF:
            at, fill_bytes = at + 1, fill_bytes + 1
        elif content[at + 1] == _START_OF_SCAN[1]:
            break
        else:
            has_length = content[at + 1] not in _WITHOUT_LENGTH
            at += 2 + (int.from_bytes(content[at + 2 : at + 4], "big") if has_length else 0)
            segments += 1
        if segments > MAX_SEGMENTS or fill_bytes > MAX_FILL_BYTES:
            raise ExcessiveJpegError(f"more than {MAX_SEGMENTS:,} segments or {MAX_FILL_BYTES:,} fill bytes")
    if content.count(_START_OF_SCAN) > MAX_SCANS:
        raise ExcessiveJpegError(f"more than {MAX_SCANS} scans")


def is_sound(content: bytes) -> bool:
    """Whether every decoder finds the same segments, up to the end of the image, and of ordinary kinds."""
    at = len(JPEG_START)
    while content[at : at + 1] == b"\xff" and len(content) > at + 1:
        marker = content[at + 1]
        if marker == _END:
            return True
        if marker not in _ORDINARY:
            return False
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN[1]:
            following = _MARKER.search(content, at)
            if following is None:
                return False
            at = following.start()
    return False


def plain_frame(content: bytes) -> tuple[int, int, int] | None:
    """(channels, height, width) of a sound grey or colour file with nothing but JFIF's segments and comments.

    Such a file is upright, and every decoder reads it. None for all others, which may be as good: look closer.
    """
    at, frame = len(JPEG_START), None
    while content[at : at + 1] == b"\xff" and len(content) > at + 3:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in _START_OF_FRAME:
            frame = None if frame else _frame_of(content[at + 4 : at + 2 + length])
            if frame is None:
                return None
        elif marker == _TABLES:
            tables = content[at + 4 : at + 2 + length]
            if len(tables) != length - 2 or len(tables) % _TABLE_BYTES or max(tables[::_TABLE_BYTES], default=16) >= 16:
                return None
        elif marker == _JFIF:
            if content[at + 4 : at + 9] != b"JFIF\0" or length < _JFIF_BYTES:
                return None
        elif marker not in _WITHOUT_EFFECT or length < 2:
            return None
        if marker == _START_OF_SCAN[1]:
            return frame if frame and content.count(_START_OF_SCAN) <= MAX_SCANS and is_sound(content) else None
        at += 2 + length
    return None


def _frame_of(segment: bytes) -> tuple[int, int, int] | None:
    is_known = len(segment) > 5 and segment[0] == 8 and segment[5] in (1, 3) and len(segment) == 6 + 3 * segment[5]
    height_px, width_px = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    return (segment[5], height_px, width_px) if is_known and height_px and width_px else None
