"""Answers warn of images that are unlike the training images."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from images.decoding import as_pixels
from images.reading import EIGHT_BITS, Reading
from serving.model.usual_images import UsualImages

OWN = Reading(alpha="roi")
COUNTS = {"train": 8, "eval": 2, "test": 3, "left_out": 4, "rejected": 1, "duplicates": 2}
GREY = np.full((8, 8), 100, np.uint8)


def saved(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def warning(content: bytes, reading: Reading = EIGHT_BITS, **counts: int) -> str:
    usual = UsualImages.from_record({"images": COUNTS | counts}, reading)
    return usual.warning(as_pixels(content, reading))


def test_an_image_without_a_region_is_unusual_if_each_training_image_had_one() -> None:
    """Duplicates, which left the test images, were counted among those with a region."""
    plain, opaque = saved(GREY), saved(np.dstack([GREY, GREY | 255]))
    own = saved(np.dstack([GREY, np.where(np.eye(8), 0, 255).astype(np.uint8)]))
    for content in (plain, opaque, saved(GREY, "JPEG")):
        assert "the image has no transparent pixels, but each training image had" in warning(
            content, OWN, with_region=15
        )
        assert warning(content, OWN, with_region=14) == ""
        assert warning(content, OWN) == ""
        assert warning(content, EIGHT_BITS, with_region=15) == ""
    assert warning(own, OWN, with_region=15) == ""


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_file_of_sixteen_bits_that_uses_few_is_unusual_to_a_model_of_eight(kind: str) -> None:
    twelve = saved(np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8), kind)
    assert "uses only 12 of them, of which image.depth 8 keeps 16 grey levels: convert 0 to 4,095" in warning(twelve)
    assert "image.range: [0, 4095]" in warning(twelve)
    assert "keeps 1 grey level:" in warning(saved(np.full((8, 8), 200, np.uint16), kind))
    assert warning(twelve, used_bits=12) == ""
    assert warning(twelve, Reading(depth=16)) == ""
    assert warning(saved(np.full((8, 8), 60_000, np.uint16), kind)) == ""
    assert warning(saved(GREY, kind)) == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_file_of_levels_is_unusual_if_each_training_image_held_values(dtype: type) -> None:
    reading = Reading(depth=16, range=(0, 255))
    levels = saved(GREY.astype(dtype))
    assert "levels of 8 or 16 bits, but each training image held values in units of its own" in warning(
        levels, reading, with_values=15
    )
    assert warning(saved(GREY.astype(np.float32), "TIFF"), reading, with_values=15) == ""
    for counts in ({}, {"with_values": 14}):
        assert warning(levels, reading, **counts) == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pages_that_are_not_scored_are_counted(dtype: type) -> None:
    reading = Reading(depth=16, range=(0, 255))
    more = [Image.fromarray(GREY.astype(dtype)) for _ in range(3)]
    stack = saved(GREY.astype(dtype), "TIFF", save_all=True, append_images=more)
    assert warning(stack, reading) == (
        "the file has 4 pages, and only the first was scored: save the others as files, or train with image.page: all"
    )
    assert warning(saved(GREY.astype(dtype), "TIFF"), reading) == ""


def test_all_that_is_unusual_is_named() -> None:
    few = np.full((8, 8), 200, np.uint16)
    stack = saved(few, "TIFF", save_all=True, append_images=[Image.fromarray(few)])
    sizes = {"smallest_height_px": 64, "smallest_width_px": 64, "lowest_aspect": 1.0, "highest_aspect": 1.0}
    usual = UsualImages.from_record({"images": COUNTS | {"with_region": 15}, "sizes": sizes}, OWN)
    named = usual.warning(as_pixels(stack, OWN))
    starts = [
        "the image has 8 x 8 pixels",
        "the image has no transparent",
        "the file of 16 bits",
        "the file has 2 pages",
    ]
    positions = [named.index(start) for start in starts]
    assert positions == sorted(positions)
