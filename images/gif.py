"""Finds the first frame of a GIF file (GIF89a) without decoding it."""

import re
from typing import Final

from runtime.errors import UserError

GIF_STARTS: Final = (b"GIF87a", b"GIF89a")
MAX_BYTES_BEFORE_FRAME: Final = 1 << 20
_HEADER_BYTES: Final = 13
_HAS_COLOURS, _COLOUR_BITS = 0x80, 0x07
_FRAME, _EXTENSION, _END = b",", b"!", b";"
_GRAPHIC_CONTROL: Final = 0xF9
_BLOCK: Final = re.compile(rb"[,!;]")


class NoFrameError(UserError):
    """The first frame does not begin within MAX_BYTES_BEFORE_FRAME."""


def from_first_frame(content: bytes) -> bytes:
    """The file without extensions and stray bytes before its first frame, which Pillow would read one by one.

    The frame's own graphic control, which says what is transparent, is kept. Raises NoFrameError.
    """
    flags = content[10] if len(content) >= _HEADER_BYTES else 0
    colours_end = _HEADER_BYTES + (3 << (flags & _COLOUR_BITS) + 1 if flags & _HAS_COLOURS else 0)
    control, at = b"", colours_end
    while block := _BLOCK.search(content, at, colours_end + MAX_BYTES_BEFORE_FRAME):
        at = block.start()
        if block[0] != _EXTENSION:
            return content[:colours_end] + control + content[at:]
        end = _end_of_blocks(content, at + 2)
        if content[at + 1 : at + 2] == bytes([_GRAPHIC_CONTROL]):
            control = content[at:end]
        at = end
    if at - colours_end >= MAX_BYTES_BEFORE_FRAME or len(content) > colours_end + MAX_BYTES_BEFORE_FRAME:
        raise NoFrameError(f"no frame in the first {MAX_BYTES_BEFORE_FRAME:,} bytes")
    return content


def _end_of_blocks(content: bytes, start: int) -> int:
    """The position after the sub-blocks at `start`; a byte of length precedes each, and 0 ends them."""
    limit = min(len(content), start + MAX_BYTES_BEFORE_FRAME)
    while start < limit and (length := content[start]):
        start += 1 + length
    return start + 1
