"""Checks and normalizes the encoded images of a request before the model's graph decodes them."""

import io
import struct
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from images.decoding import UnreadableImageError, as_viewed
from images.formats import FORMATS
from schema.signatures import IMAGE_BYTES
from serving.errors import ServingError, invalid_argument

Image.init()
_PNG_START = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
# Pillow warns about sizes that are within our own limits.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def checked_images(
    images: npt.NDArray[np.object_], *, max_image_pixels: float, max_request_pixels: float
) -> npt.NDArray[np.object_]:
    """Encoded images of any shape, as ingestion stores them.

    Raises INVALID_ARGUMENT that names the first item that is not an image or declares too many pixels. All headers are
    read before anything is decoded; `max_request_pixels` limits all images of the request together.
    """
    contents = images.ravel().tolist()
    total_px = 0
    for index, data in enumerate(contents):
        pixels = _declared_pixels(index, data)
        total_px += pixels
        if pixels > max_image_pixels:
            raise _unfit(index, f"the image has {pixels} pixels; at most {max_image_pixels} are accepted")
    if total_px > max_request_pixels:
        raise invalid_argument(
            f"{IMAGE_BYTES}: the images have {total_px} pixels together; "
            f"at most {max_request_pixels} are accepted in one request"
        )
    return np.array([_as_viewed(*item) for item in enumerate(contents)], dtype=object).reshape(images.shape)


def _declared_pixels(index: int, data: bytes) -> int:
    if data.startswith(_PNG_START):  # the most frequent format, and fast to parse without Pillow
        width, height = struct.unpack_from(">II", data.ljust(24, b"\0"), len(_PNG_START))
        return int(width * height)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except UnidentifiedImageError:
        raise _unfit(index, f"not an image ({len(data)} bytes)") from None
    except Image.DecompressionBombError as error:
        raise _unfit(index, str(error)) from None
    except Exception as error:  # Pillow's readers raise many kinds on broken headers
        raise _unfit(index, f"the image's header cannot be read ({error})") from None


def _as_viewed(index: int, data: bytes) -> bytes:
    try:
        return as_viewed(data)
    except UnreadableImageError as error:
        raise _unfit(index, str(error)) from None


def _unfit(index: int, reason: str) -> ServingError:
    return invalid_argument(f"{IMAGE_BYTES}[{index}]: {reason}")
