"""Image files written byte by byte from their specifications, and pictures in every format that Pillow writes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

TIFF_TYPES = {"H": 3, "I": 4}


def encode(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def chunk(kind: bytes, data: bytes, *, checksum: bytes | None = None) -> bytes:
    """A PNG chunk (ISO/IEC 15948, section 5.3)."""
    correct = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + (checksum or correct)


def with_chunk(png: bytes, kind: bytes, data: bytes, *, checksum: bytes | None = None) -> bytes:
    """The PNG file with one more chunk, after IHDR."""
    return png[:33] + chunk(kind, data, checksum=checksum) + png[33:]


def tiff(values: np.ndarray, *, order="<", sample_format=1, photometric=1, bits=None, page_count=1, tags=()) -> bytes:
    """An uncompressed TIFF of [H, W] or [H, W, C] values (TIFF 6.0); `tags` are further (tag, struct code, value)."""
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height_px, width_px, channels = (*values.shape, 1)[:3]
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for page in range(page_count):
        bits_of_each = (bits or values.dtype.itemsize * 8,) * channels
        entries = sorted(
            {
                256: ("I", (width_px,)), 257: ("I", (height_px,)), 258: ("H", bits_of_each), 259: ("H", (1,)),
                262: ("H", (photometric,)), 273: ("I", (None,)), 277: ("H", (channels,)), 278: ("I", (height_px,)),
                279: ("I", (len(pixels),)), 339: ("H", (sample_format,) * channels),
                **{tag: (code, (value,)) for tag, code, value in tags},
            }.items()
        )  # fmt: skip
        start = len(content)
        extra_at = start + 2 + 12 * len(entries) + 4
        directory, extra = struct.pack(order + "H", len(entries)), b""
        sizes = [len(given) * struct.calcsize(code) for _, (code, given) in entries]
        data_at = extra_at + sum(size for size in sizes if size > 4)
        for (tag, (code, given)), size in zip(entries, sizes, strict=True):
            packed = struct.pack(f"{order}{len(given)}{code}", *(data_at if v is None else v for v in given))
            if size > 4:
                extra, packed = extra + packed, struct.pack(order + "I", extra_at + len(extra))
            directory += struct.pack(order + "HHI", tag, TIFF_TYPES[code], len(given)) + packed.ljust(4, b"\0")
        following = data_at + len(pixels) + len(pixels) % 2 if page + 1 < page_count else 0
        content += directory + struct.pack(order + "I", following) + extra + pixels + b"\0" * (len(pixels) % 2)
    return content


def packed_12_bits(values: np.ndarray) -> bytes:
    """[H, W] with even W -> rows of 12-bit values, most significant bits first."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    joined = pairs[:, 0] << 12 | pairs[:, 1]
    return np.stack([joined >> 16, joined >> 8 & 255, joined & 255], axis=1).astype(np.uint8).tobytes()
