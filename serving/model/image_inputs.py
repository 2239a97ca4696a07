"""Checks and normalizes the encoded images of a request before the model's graph decodes them."""

import io
import struct
import warnings
from collections.abc import Sequence

from PIL import Image, UnidentifiedImageError

from images.decoding import UnreadableImageError, as_viewed
from images.formats import FORMATS
from serving.errors import invalid_argument

Image.init()
_PNG_START = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
# Pillow warns about sizes that are within our own limits.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def refuse_unfit_images(
    name: str, images: Sequence[bytes], *, max_image_pixels: float, max_request_pixels: float
) -> None:
    """Raise INVALID_ARGUMENT that names the first item that is not an image or declares too many pixels.

    Only headers are read. `max_request_pixels` limits all images of the request together.
    """
    total_px = 0
    for index, data in enumerate(images):
        pixels = _declared_pixels(name, index, data)
        total_px += pixels
        if pixels > max_image_pixels:
            raise invalid_argument(
                f"{name}[{index}]: the image has {pixels} pixels; at most {max_image_pixels} are accepted"
            )
    if total_px > max_request_pixels:
        raise invalid_argument(
            f"{name}: the images have {total_px} pixels together; "
            f"at most {max_request_pixels} are accepted in one request"
        )


def all_as_viewed(name: str, images: Sequence[bytes]) -> list[bytes]:
    """The images as ingestion stores them; INVALID_ARGUMENT names the first that is not an image."""
    converted = []
    for index, data in enumerate(images):
        try:
            converted.append(as_viewed(data))
        except UnreadableImageError as error:
            raise invalid_argument(f"{name}[{index}]: {error}") from None
    return converted


def _declared_pixels(name: str, index: int, data: bytes) -> int:
    if data.startswith(_PNG_START):  # the most frequent format, and fast to parse without Pillow
        width, height = struct.unpack_from(">II", data.ljust(24, b"\0"), len(_PNG_START))
        return int(width * height)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except UnidentifiedImageError:
        raise invalid_argument(f"{name}[{index}]: not an image ({len(data)} bytes)") from None
    except Image.DecompressionBombError as error:
        raise invalid_argument(f"{name}[{index}]: {error}") from None
    except Exception as error:  # Pillow's readers raise many kinds on broken headers
        raise invalid_argument(f"{name}[{index}]: the image's header cannot be read ({error})") from None
