"""The benchmark's images: MNIST, and as many synthetic images as needed."""

import os
import struct
from pathlib import Path

import numpy as np

from components.sources import downloads
from images.decoding import Pixels

MNIST_VARIABLE = "MNIST_FOLDER"
"""Environment variable: folder of MNIST's four files; if unset, they are downloaded once, like the source `mnist`."""
_SIDE_PX = 28
_CHUNK = 10_000
_TEST_SHARE = 7


def mnist_folder() -> Path:
    """The folder of MNIST's four original files."""
    given = os.environ.get(MNIST_VARIABLE)
    return Path(given) if given else downloads.fetch("mnist")


def write_synthetic_images(folder: Path, count: int, *, seed: int) -> None:
    """Write `count` different 28x28 images in MNIST's file format, a seventh of them for test, without labels.

    Light patches on black, which compress to about as many bytes as digits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    test = count // _TEST_SHARE
    for stem, rows in (("train", count - test), ("t10k", test)):
        with (folder / f"{stem}-images-idx3-ubyte").open("wb") as file:
            file.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", rows, _SIDE_PX, _SIDE_PX))
            for start in range(0, rows, _CHUNK):
                file.write(_patches(rng, min(_CHUNK, rows - start)).tobytes())


def _patches(rng: np.random.Generator, count: int) -> Pixels:
    """[count, 28, 28] uint8: 7x7 noise, the darker half set to black, enlarged four times."""
    coarse = rng.integers(0, 256, (count, 7, 7), dtype=np.uint8)
    coarse[coarse < 128] = 0
    return coarse.repeat(4, axis=1).repeat(4, axis=2)
