"""Encodes pictures as `data:` URIs that are small enough for a page."""

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from images.decoding import picture_of
from images.heat import heat_colours

Values = npt.NDArray[np.float64]

_LARGEST_PX = 144
_LOSSLESS_UP_TO_PX = 64
"""Pictures up to this size are stored losslessly, since the browser enlarges each of their pixels."""


def file_uri(encoded: bytes) -> str:
    """The URI of an image file, in any format that examples may have."""
    pixels = picture_of(encoded)
    return pixels_uri(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def pixels_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """The URI of pixels [H, W] or [H, W, 3]."""
    return _uri(Image.fromarray(pixels))


def values_uri(values: Values) -> str:
    """The URI of pixel values [H, W, C] in [0, 1]."""
    pixels = np.clip(np.round(values * 255.0), 0, 255).astype(np.uint8)
    return pixels_uri(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels)


def heat_uri(anomaly_map: Values) -> str:
    """The URI of an anomaly map [H, W], in multiples of the pixel threshold."""
    return pixels_uri(heat_colours(anomaly_map))


def _uri(image: Image.Image) -> str:
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    image.thumbnail((_LARGEST_PX, _LARGEST_PX))
    lossless = max(image.size) <= _LOSSLESS_UP_TO_PX
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "WEBP", quality=82)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{'png' if lossless else 'webp'};base64,{encoded}"
