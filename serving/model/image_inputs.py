"""Checks and normalizes the encoded images of a request before the model's graph decodes them."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from images.decoding import Prepared, UnreadableImageError, as_pixels, declared_size, page_count, upright_size
from images.pictures import png_to_look_at
from images.reading import EIGHT_BITS, Reading
from schema.artifacts import RECORD_FILE
from schema.signatures import IMAGE_BYTES
from serving.errors import ServingError, invalid_argument
from serving.model.usual_images import UsualImages

PREVIEW_PX: Final = 1024
"""The longer side of a preview."""

Result = TypeVar("Result")


def reading_of_model(folder: Path) -> Reading:
    """How the model in `folder` reads image files, from its record; models without a record read 8 bits."""
    return _reading_in(_record_of(folder))


def usual_images_of_model(folder: Path) -> UsualImages | None:
    """What the training images of the model in `folder` were like; None if it has no record."""
    record = _record_of(folder)
    return UsualImages.from_record(record, _reading_in(record)) if record else None


def ends_of_model(folder: Path) -> tuple[float, float] | None:
    """The values of 16 bits or more that are black and white to the model in `folder`, if it has its own range."""
    record = _record_of(folder)
    if "pixel_levels" not in record or not _reading_in(record).reads_values:
        return None
    low, high = record["pixel_levels"]
    return low, high


def _reading_in(record: dict[str, Any]) -> Reading:
    image = record.get("image")
    if image is None:
        return EIGHT_BITS
    return Reading.model_validate({name: image[name] for name in Reading.model_fields if name in image})


def _record_of(folder: Path) -> dict[str, Any]:
    """Empty if the model has none."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return record


def preview_of(
    content: bytes, *, max_image_pixels: float, ends: tuple[float, float] | None
) -> tuple[bytes, tuple[int, int]]:
    """(a PNG of what the file shows, at most PREVIEW_PX wide and high, the file's own height and width).

    `ends`: as in `picture_of`. Raises INVALID_ARGUMENT if the file is no image, or declares too many pixels.
    """
    try:
        size = upright_size(content)
        if problem := _too_large(math.prod(size), max_image_pixels):
            raise invalid_argument(problem)
        return png_to_look_at(content, ends=ends, longest_px=PREVIEW_PX), size
    except UnreadableImageError as error:
        raise invalid_argument(str(error)) from None


def checked_images(
    images: npt.NDArray[np.object_],
    *,
    max_image_pixels: float,
    max_request_pixels: float,
    reading: Reading = EIGHT_BITS,
) -> list[Prepared]:
    """Encoded images of any shape, in order, as ingestion stores them for a model that reads image files so.

    Raises INVALID_ARGUMENT that names the first item that is not an image, declares too many pixels, or has several
    pages, each of which is an image to the model. All headers are read before anything is decoded;
    `max_request_pixels` limits all images of the request together.
    """
    contents = images.ravel().tolist()
    total_px = 0
    for index, data in enumerate(contents):
        width_px, height_px = _read(declared_size, index, data)
        pixels = width_px * height_px
        total_px += pixels
        if problem := _too_large(pixels, max_image_pixels):
            raise _unfit(index, problem)
        if reading.page == "all" and (pages := page_count(data)) > 1:
            raise _unfit(index, f"the file has {pages} pages, and each is an image to this model; send them one by one")
    if total_px > max_request_pixels:
        raise invalid_argument(
            f"{IMAGE_BYTES}: the images have {total_px} pixels together; "
            f"at most {max_request_pixels} are accepted in one request"
        )
    read = functools.partial(as_pixels, reading=reading)
    return [_read(read, *item) for item in enumerate(contents)]


def _too_large(pixels: int, max_image_pixels: float) -> str:
    """Empty if the size is accepted."""
    if pixels <= max_image_pixels:
        return ""
    return f"the image has {pixels} pixels; at most {max_image_pixels} are accepted"


def _read(read: Callable[[bytes], Result], index: int, data: bytes) -> Result:
    try:
        return read(data)
    except UnreadableImageError as error:
        raise _unfit(index, str(error)) from None


def _unfit(index: int, reason: str) -> ServingError:
    return invalid_argument(f"{IMAGE_BYTES}[{index}]: {reason}")
