"""A look at encoded images before they are decoded: how many pixels does each claim to be?"""

import io
import warnings
from collections.abc import Sequence

from PIL import Image, UnidentifiedImageError

from serving.errors import invalid_argument

Image.init()
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
# Pillow warns of sizes that are still within our own limits.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def refuse_unfit_images(
    name: str, images: Sequence[bytes], *, max_image_pixels: int, max_request_pixels: int
) -> None:
    """Raise INVALID_ARGUMENT naming the first of `images` that is no image or claims too many pixels.

    Only headers are read. `max_request_pixels` bounds all images of the request together.
    """
    total_px = 0
    for index, data in enumerate(images):
        pixels = _claimed_pixels(name, index, data)
        total_px += pixels
        if pixels > max_image_pixels:
            raise invalid_argument(
                f"{name}[{index}]: the image claims {pixels} pixels; at most {max_image_pixels} are accepted"
            )
    if total_px > max_request_pixels:
        raise invalid_argument(
            f"{name}: the images claim {total_px} pixels together; "
            f"at most {max_request_pixels} are accepted in one request"
        )


def _claimed_pixels(name: str, index: int, data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError:
        raise invalid_argument(f"{name}[{index}]: not an image ({len(data)} bytes)") from None
    except Image.DecompressionBombError as error:
        raise invalid_argument(f"{name}[{index}]: {error}") from None
    except Exception as error:  # Pillow's readers raise many kinds on broken headers
        raise invalid_argument(f"{name}[{index}]: the image's header cannot be read ({error})") from None
    return width * height
