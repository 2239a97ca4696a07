"""Draws a scored image beside its reconstruction and a heat map of their differences."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from images.decoding import picture_of
from serving.client import Score

Array = np.ndarray[Any, Any]


def write_overlay(image_file: Path, score: Score, target: Path, *, height_px: int = 256) -> None:
    """Write image, reconstruction and heat map over the image, side by side, to the PNG file `target`.

    `score` must include its maps. Heat runs from black over red and yellow to white, relative to the largest error
    of the image: it shows where an image differs; the score tells how much.
    """
    if score.reconstruction is None or score.error_map is None:
        raise ValueError(f"{image_file}: the score has no maps; request it with_maps=True")
    height, width = score.error_map.shape
    size = (max(1, round(height_px * width / height)), height_px)
    original = _picture(picture_of(image_file.read_bytes()) / 255).resize(size)
    reconstruction = _picture(score.reconstruction).resize(size, Image.Resampling.NEAREST)
    heat = Image.fromarray(heat_colours(score.error_map)).resize(size, Image.Resampling.NEAREST)
    panels = Image.new("RGB", (3 * size[0], size[1]))
    for number, panel in enumerate((original, reconstruction, Image.blend(original, heat, 0.6))):
        panels.paste(panel, (number * size[0], 0))
    panels.save(target, format="PNG")


def heat_colours(error_map: Array) -> Array:
    """[H, W] errors -> [H, W, 3] bytes: black for no error, white for the largest."""
    highest = max(float(np.max(error_map, initial=0.0)), 1e-12)
    heat = 3 * np.sqrt(np.clip(error_map / highest, 0, 1))
    channels = [np.clip(heat - offset, 0, 1) for offset in range(3)]
    pixels: Array = np.round(255 * np.stack(channels, axis=-1)).astype(np.uint8)
    return pixels


def _picture(pixels: Array) -> Image.Image:
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return Image.fromarray(np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8))
