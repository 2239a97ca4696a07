"""Encodes pictures as `data:` URIs that are small enough for a page."""

import base64
import io

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

from images.decoding import picture_of

Values = npt.NDArray[np.float64]

_LARGEST_PX = 144
_LOSSLESS_UP_TO_PX = 64
"""Pictures up to this size are stored losslessly, since the browser enlarges each of their pixels."""
_HEAT = (mpl.colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


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


def heat_uri(error_map: Values, hottest: float) -> str:
    """The URI of an error map [H, W] in colours from black (0) to yellow (`hottest` and above)."""
    levels = np.clip(np.round(error_map / hottest * 255.0), 0, 255).astype(np.uint8)
    return pixels_uri(_HEAT[levels])


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
