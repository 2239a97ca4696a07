"""Images are checked by their headers before they are decoded."""

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.errors import ServingError
from serving.model.image_inputs import gif_pixels, refuse_unfit_images


def _gif(sizes: list[tuple[int, int]]) -> bytes:
    """A GIF whose frames declare these sizes, on a canvas of one pixel."""
    frames = [Image.new("L", (8, 8), 255 * (number % 2)) for number in range(len(sizes))]
    out = io.BytesIO()
    frames[0].save(out, format="GIF", save_all=True, append_images=frames[1:])
    data = bytearray(out.getvalue())
    data[6:10] = struct.pack("<HH", 1, 1)
    declared = struct.pack("<HH", 8, 8)
    position = 10
    for size in sizes:
        position = data.index(b",\0\0\0\0" + declared, position) + 5
        data[position : position + 4] = struct.pack("<HH", *size)
    return bytes(data)


def test_gif_without_an_image_is_refused_from_its_header() -> None:
    """Pillow would search the rest for an image byte by byte."""
    zeros = b"GIF89a" + struct.pack("<HH", 8, 8) + bytes(2**20)
    with pytest.raises(ServingError, match=r"image_bytes\[0\]: .*a GIF without an image"):
        refuse_unfit_images("image_bytes", [zeros], max_image_pixels=10**6, max_request_pixels=10**9)


def test_every_frame_of_a_gif_counts() -> None:
    """Even if it is larger than the canvas; counting stops where the data ends."""
    data = _gif([(8, 8), (60_000, 60_000), (10, 20)])
    assert gif_pixels(data) == 64 + 60_000**2 + 200
    assert gif_pixels(data[:20]) == 0
    with pytest.raises(ServingError, match="image_bytes.0.: the image has 3600000264 pixels"):
        refuse_unfit_images("image_bytes", [data], max_image_pixels=10**6, max_request_pixels=10**9)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_after_a_gif_header_are_counted(data: bytes) -> None:
    """To the end, without raising an error."""
    assert gif_pixels(b"GIF89a" + data) >= 0
