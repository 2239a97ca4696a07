"""Decompresses gzip files (RFC 1952) with zlib-ng, in less than half of zlib's time."""

from typing import Any, BinaryIO, Final, cast

from zlib_ng import gzip_ng, zlib_ng

GZIP_MAGIC: Final = b"\x1f\x8b"
_gzip: Any = gzip_ng.GzipNGFile  # publishes no types
_error: Any = zlib_ng.error  # declared as an instance
DAMAGED: Final[tuple[type[Exception], type[Exception], type[Exception]]] = (OSError, EOFError, _error)
"""The errors that reading a damaged or truncated file raises."""


def unzipped(stream: BinaryIO) -> BinaryIO:
    """The decompressed content of an open gzip file; closing it leaves `stream` open."""
    return cast(BinaryIO, _gzip(fileobj=stream, mode="rb"))
