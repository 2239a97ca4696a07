"""Images in tiles: what more memory a higher one takes than a lower one, and how the time grows with the tiles.

`python -m bench.tiles HEIGHT_PX WIDTH_PX` prints what scoring one image of this size takes.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from bench.comparison import Comparison
from bench.timing import in_new_process
from trainer.settings.image import ImageSettings
from trainer.settings.tiles import Tiles

_AREA: Final = "tiles"
_HEIGHTS_PX: Final = {"tiny": (300, 600), "small": (1000, 4000), "full": (1000, 16_000)}
_WIDTHS_PX: Final = {"tiny": 300, "small": 1000, "full": 1000}
"""The same for both images, so that as many tiles are computed together."""
_FAMILY: Final = "conv"
_TILE_PX: Final = 256
_CHANNELS: Final = 3
_FLOAT_BYTES: Final = 4
_SQUARE_PX: Final = 8
"""Sides of the squares of one colour that images consist of, so that their files are small."""
_MODEL_FOLDER: Final = "model"
_IMAGE_FILE: Final = "image.png"
_MAX_OF_FLOATS: Final = 2.4
_MAX_OF_TILES: Final = 1.5


class Scored(NamedTuple):
    """What scoring one image takes."""

    loaded_mb: float
    """Peak memory while the model is loaded, TensorFlow included."""
    peak_mb: float
    """Peak memory afterwards."""
    cpu_s: float
    """Processor seconds."""


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Two images, each scored in a process of its own; maps and regions are included."""
    sizes = [(height_px, _WIDTHS_PX[size]) for height_px in _HEIGHTS_PX[size]]
    with tempfile.TemporaryDirectory() as root:
        folders = [_write(Path(root, str(height_px)), height_px, width_px) for height_px, width_px in sizes]
        pairs = [[in_new_process(_score, folder) for folder in folders] for _ in range(repetitions)]
    few, many = (_image(*size_px).tile_count for size_px in sizes)
    (low_px, width_px), (high_px, _) = sizes
    floats_mb = (high_px - low_px) * width_px * _CHANNELS * _FLOAT_BYTES / 2**20
    return [
        Comparison(
            _AREA,
            f"memory of {high_px}x{width_px} pixels above that of {low_px}x{width_px}",
            "these pixels as 32-bit floats",
            tuple(large.peak_mb - small.peak_mb for small, large in pairs),
            (floats_mb,) * repetitions,
            _MAX_OF_FLOATS,
            unit="MB",
        ),
        Comparison(
            _AREA,
            f"processor time per tile, {many} tiles",
            f"{few} tiles",
            tuple(large.cpu_s / many for _, large in pairs),
            tuple(small.cpu_s / few for small, _ in pairs),
            _MAX_OF_TILES,
        ),
    ]


def _image(height_px: int, width_px: int) -> ImageSettings:
    tiles = Tiles(height_px=_TILE_PX, width_px=_TILE_PX)
    return ImageSettings(height_px=height_px, width_px=width_px, channels=_CHANNELS, tiles=tiles)


def _write(folder: Path, height_px: int, width_px: int) -> Path:
    """Write a model of images of this size, whose weights are random, and such an image."""
    import tf_keras as keras

    from bench.small_models import write_small_model
    from images.png import encode_png
    from trainer.families.registry import build_autoencoder
    from trainer.fitting.tracing import keep_autograph_out
    from trainer.settings.calibration import CalibrationSettings
    from trainer.settings.trainer import TrainerSettings

    keep_autograph_out()
    keras.utils.set_random_seed(0)
    image = _image(height_px, width_px)
    squares = (-(-height_px // _SQUARE_PX), -(-width_px // _SQUARE_PX), _CHANNELS)
    colours = np.random.default_rng(0).integers(0, 256, squares, np.uint8)
    pixels = colours.repeat(_SQUARE_PX, axis=0).repeat(_SQUARE_PX, axis=1)[np.newaxis, :height_px, :width_px]
    folder.mkdir()
    (folder / _IMAGE_FILE).write_bytes(next(encode_png(pixels)))
    autoencoder = build_autoencoder(image, TrainerSettings.model_validate({"preset": _FAMILY}))
    scaled = (pixels / np.float32(255)).astype(np.float32)
    settings = CalibrationSettings(score="worst_pixels", false_alarm_rate=0.5)  # one image calibrates
    write_small_model(folder / _MODEL_FOLDER, autoencoder, scaled, scaled, image=image, settings=settings)
    return folder


def _score(folder: Path) -> Scored:
    from pipeline.metadata.measure import start_measuring
    from schema.artifacts import PEAK_MEMORY_PROPERTY
    from serving.scoring import local_scorer

    model, content = folder / _MODEL_FOLDER, (folder / _IMAGE_FILE).read_bytes()
    measure = start_measuring()
    score = local_scorer(model, with_maps=True)
    loaded_mb = measure()[PEAK_MEMORY_PROPERTY]
    measure = start_measuring()
    score([content])  # TensorFlow optimises the graph
    started = time.process_time()
    score([content])
    cpu_s = time.process_time() - started
    return Scored(loaded_mb, measure()[PEAK_MEMORY_PROPERTY], cpu_s)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        print(in_new_process(_score, _write(Path(root, "written"), *map(int, sys.argv[1:]))))
