"""Draws sample_images/: buttons on cloth in MVTec's layout, small enough to ship. Run it to draw them anew."""

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_SCALE = 4  # drawn larger, then reduced: smooth edges
_COUNTS = {"train/good": 300, "test/good": 40, "test/scratch": 15, "test/missing_hole": 15}


def main(folder: Path) -> None:
    """Write JPEGs of 48 to 64 pixels, and for each defect its mask (white: defective)."""
    random = np.random.default_rng(0)
    for split, count in _COUNTS.items():
        kind = split.split("/")[1]
        for number in range(count):
            image, mask = _button(random, kind)
            _save(image, folder / split / f"{number:03d}.jpg", quality=88)
            if kind != "good":
                _save(mask, folder / "ground_truth" / kind / f"{number:03d}_mask.png")


def _button(random: np.random.Generator, kind: str) -> tuple[Image.Image, Image.Image]:
    width, height = (int(side) * _SCALE for side in random.integers(48, 65, 2))
    image = Image.new("RGB", (width, height), _colour(random, 60, 110))
    mask = Image.new("L", (width, height))
    draw, mask_draw = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    x, y = (side / 2 + random.uniform(-5, 5) * _SCALE for side in (width, height))
    radius = random.uniform(16, 20) * _SCALE
    colour = _colour(random, 120, 230)
    _disc(draw, x, y, radius, colour)
    _disc(draw, x, y, radius * 0.75, tuple(int(c * 0.85) for c in colour))
    turn, hole = random.uniform(0, math.pi / 2), radius * 0.13
    for corner in range(4):
        angle = turn + corner * math.pi / 2
        centre = x + radius * 0.35 * math.cos(angle), y + radius * 0.35 * math.sin(angle)
        if kind == "missing_hole" and corner == 0:
            _disc(mask_draw, *centre, hole, 255)
        else:
            _disc(draw, *centre, hole, (25, 25, 25))
    if kind == "scratch":
        angle = random.uniform(0, math.pi)
        dx, dy = radius * 0.7 * math.cos(angle), radius * 0.7 * math.sin(angle)
        for target, ink in ((draw, (250, 250, 245)), (mask_draw, 255)):
            target.line((x - dx, y - dy, x + dx, y + dy), fill=ink, width=2 * _SCALE)
    size = width // _SCALE, height // _SCALE
    return image.filter(ImageFilter.GaussianBlur(1)).resize(size), mask.resize(size, Image.Resampling.NEAREST)


def _colour(random: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(c) for c in random.integers(low, high, 3))


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, ink: int | tuple[int, ...]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _save(image: Image.Image, path: Path, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "sample_images"))
