"""TIFF files show what their tags say (TIFF 6.0), or are refused by their kind."""

import struct
import time

import numpy as np
import pytest
from image_entrances import by_pillow, refusal, seen, seen_grey
from image_files import encode, packed_12_bits, tiff
from PIL import Image

from images.stored import from_file_bytes

WIDE = (np.arange(64, dtype="u2") * 100).reshape(8, 8)
GREY = np.arange(64, dtype="u1").reshape(8, 8)
COLOUR = np.random.RandomState(0).randint(0, 256, (5, 7, 3), "u1")
ORDERS = pytest.mark.parametrize("order", ["<", ">"])


@ORDERS
def test_sixteen_bits_keep_their_high_byte(order):
    assert np.array_equal(seen_grey(tiff(WIDE, order=order)), WIDE >> 8)
    assert seen_grey(tiff(WIDE, order=order)).max() == 24


@ORDERS
@pytest.mark.parametrize("values", [WIDE, GREY], ids=["16", "8"])
def test_white_is_zero(order, values):
    inverted = np.iinfo(values.dtype).max - values
    expected = inverted if values.dtype == np.uint8 else inverted >> 8
    assert np.array_equal(seen_grey(tiff(values, order=order, photometric=0)), expected)


@ORDERS
def test_colour_of_eight_and_sixteen_bits(order):
    wide = COLOUR.astype("u2") * 256 + 77
    for values in (COLOUR, wide):
        assert np.array_equal(seen(tiff(values, order=order, photometric=2)), COLOUR)


def test_twelve_bits_keep_their_upper_eight():
    values = (np.arange(64) * 65).reshape(8, 8)
    packed = np.frombuffer(packed_12_bits(values), np.uint8).reshape(8, 12)
    # The width in the tags counts pixels, not bytes.
    content = tiff(packed, bits=12, tags=[(256, "I", 8)])
    assert np.array_equal(seen_grey(content), values >> 4)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "raw"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_compression_changes_nothing(compression, order):
    content = encode(Image.fromarray(WIDE.astype(f"{order}u2")), "TIFF", compression=compression)
    assert np.array_equal(seen_grey(content), WIDE >> 8)
    content = encode(Image.fromarray(COLOUR), "TIFF", compression=compression)
    assert np.array_equal(seen(content), by_pillow(content))


@ORDERS
@pytest.mark.parametrize(
    ("values", "sample_format", "named"),
    [
        (np.array([[0, 2**31], [2**32 - 1, 5]], "u4"), 1, "32-bit unsigned integers, grey"),
        (np.array([[0, 1], [2, 3]], "u4"), 1, "32-bit unsigned integers, grey"),
        (np.array([[0, -1], [2, 3]], "i4"), 2, "32-bit signed integers, grey"),
        (np.array([[0, -1], [2, 3]], "i2"), 2, "16-bit signed integers, grey"),
        (np.array([[0, 1], [2, 3]], "i2"), 2, "16-bit signed integers, grey"),
        (np.array([[0, -1], [2, 3]], "i1"), 2, "8-bit signed integers, grey"),
        (np.array([[0, 1], [2, 3]], "f4"), 3, "32-bit floats, grey"),
        (np.array([[0, 1], [2, 3]], "f2"), 3, "16-bit floats, grey"),
        (np.array([[0, 1], [2, 3]], "f8"), 3, "64-bit floats, grey"),
        (np.zeros((2, 2, 3), "f4"), 3, "3 channels of 32-bit floats"),
        (np.zeros((2, 2, 2), "u1"), 1, "2 channels of 8-bit unsigned integers"),
        (np.zeros((2, 2, 5), "u1"), 1, "5 channels of 8-bit unsigned integers"),
    ],
)  # fmt: skip
def test_other_kinds_are_named_with_what_is_supported(order, values, sample_format, named):
    photometric = 2 if values.ndim == 3 and values.shape[2] == 3 else 1
    reason = refusal(tiff(values, order=order, sample_format=sample_format, photometric=photometric))
    assert named in reason
    assert "8- or 16-bit unsigned grey or RGB" in reason


def test_dropped_pages_are_counted():
    content = tiff(GREY, page_count=3)
    assert from_file_bytes(content).page_count == 3
    assert np.array_equal(seen_grey(content), GREY)
    assert from_file_bytes(tiff(GREY, tags=[(254, "I", 1)], page_count=3)).page_count == 1  # reduced copies


@pytest.mark.parametrize("offset", [0, 7, 100, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("count", [0, 1, 2**32, 2**64 - 1])
def test_a_bigtiff_that_points_anywhere_is_refused(offset, count):
    entry = struct.pack("<HHQQ", 258, 3, count, offset)
    assert refusal(b"II+\0\x08\0\0\0" + struct.pack("<QQ", offset, count) + entry)
    assert refusal(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1) + entry + bytes(8))


def test_overlapping_pages_cost_little():
    """Each of 30,000 directories claims all the bytes behind it."""
    links = b"".join(struct.pack("<HI", 5000, 0) for _ in range(30_000))
    content = b"II*\0" + struct.pack("<I", 8) + links + bytes(60_000)
    started = time.process_time()
    refusal(content)
    assert time.process_time() - started < 3
