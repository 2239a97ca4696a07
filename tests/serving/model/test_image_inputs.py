"""Images are checked by their headers before they are decoded."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from images.reading import EIGHT_BITS, Reading
from images.values import Values, decode_values, encode_values
from schema.artifacts import RECORD_FILE
from serving.errors import ServingError
from serving.model.image_inputs import checked_images, reading_of_model

WITHIN_LIMITS = {"max_image_pixels": 10**6, "max_request_pixels": 10**9}


def gif(*, side_px: int, frames: int, declared_px: int | None = None) -> bytes:
    """Frames of increasing brightness; `declared_px` replaces the side in the header of every frame but the first."""
    images = [Image.new("L", (side_px, side_px), number % 256) for number in range(frames)]
    out = io.BytesIO()
    images[0].save(out, format="GIF", save_all=True, append_images=images[1:], optimize=False)
    data, side = out.getvalue(), side_px.to_bytes(2, "little")
    frame = b",\0\0\0\0"
    if declared_px is not None:
        first = data.index(frame + 2 * side) + len(frame)
        larger = frame + 2 * declared_px.to_bytes(2, "little")
        data = data[:first] + data[first:].replace(frame + 2 * side, larger)
    return data


def test_a_file_of_several_images_is_refused_unless_the_model_takes_the_first() -> None:
    pages = [Image.new("L", (8, 8), level) for level in (10, 200)]
    files = [io.BytesIO(), io.BytesIO()]
    pages[0].save(files[0], "TIFF")
    pages[0].save(files[1], "TIFF", save_all=True, append_images=pages[1:])
    data = np.array([file.getvalue() for file in files], object)
    assert len(checked_images(data, **WITHIN_LIMITS)) == 2
    with pytest.raises(ServingError, match=r"image_bytes\[1\]: the file has 2 pages.*send them one by one"):
        checked_images(data, reading=Reading(page="all"), **WITHIN_LIMITS)


@pytest.mark.parametrize("declared_px", [None, 60_000])
def test_only_the_first_frame_of_a_gif_reaches_the_model(declared_px: int | None) -> None:
    """However many frames follow and however large they claim to be: together 100 x 3.6 billion pixels here."""
    data = gif(side_px=8, frames=101, declared_px=declared_px)
    assert data.count(b",\0\0\0\0") >= 101
    [png] = checked_images(np.array([data], object), **WITHIN_LIMITS)
    with Image.open(io.BytesIO(png.encoded)) as image:
        assert (image.format, image.size, getattr(image, "n_frames", 1)) == ("PNG", (8, 8), 1)
        assert not np.asarray(image).any()


def test_a_first_frame_larger_than_its_gif_counts() -> None:
    """Decoders enlarge the canvas to the frame."""
    data = bytearray(gif(side_px=8, frames=1))
    frame = data.index(b",\0\0\0\0") + 5
    data[frame : frame + 4] = 2 * (2000).to_bytes(2, "little")
    with pytest.raises(ServingError, match=r"image_bytes\[0\]: the image has 4000000 pixels; at most 1000000"):
        checked_images(np.array([bytes(data)], object), **WITHIN_LIMITS)


def test_a_gif_without_an_image_is_refused() -> None:
    nothing = gif(side_px=8, frames=1)[:6] + bytes(2**16)
    with pytest.raises(ServingError, match=r"image_bytes\[0\]: cannot be decoded: its header is damaged"):
        checked_images(np.array([nothing], object), **WITHIN_LIMITS)


def wide_png(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, format="PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("record", "reading"),
    [
        (None, EIGHT_BITS),
        ({"image": {"height_px": 8}}, EIGHT_BITS),
        ({"image": {"depth": 16, "range": [0, 4095]}}, Reading(depth=16, range=(0, 4095))),
    ],
)
def test_a_model_reads_images_as_its_record_says(tmp_path: Path, record: object, reading: Reading) -> None:
    if record is not None:
        (tmp_path / RECORD_FILE).parent.mkdir()
        (tmp_path / RECORD_FILE).write_text(json.dumps(record))
    assert reading_of_model(tmp_path) == reading
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    [png] = checked_images(np.array([wide_png(values)], object), reading=reading, **WITHIN_LIMITS)
    with Image.open(io.BytesIO(png.encoded)) as image:
        assert np.array_equal(np.asarray(image), values if reading.depth == 16 else values >> 8)


def test_values_without_black_and_white_need_a_range() -> None:
    file = encode_values(Values(np.zeros((8, 8, 1), np.float32)))
    with pytest.raises(ServingError, match=r"image_bytes\[0\]: its values have no fixed black and white"):
        checked_images(np.array([file], object), **WITHIN_LIMITS)
    ranged = Reading(depth=16, range=(-1.0, 1.0))
    [kept] = checked_images(np.array([file], object), reading=ranged, **WITHIN_LIMITS)
    assert np.array_equal(decode_values(kept.encoded).values, np.zeros((8, 8, 1)))
