"""Images as a model sees them become files that its graph decodes to the same pixels."""

import numpy as np
import pytest
import tensorflow as tf

from images.decoding import Shown, as_pixels, encoded_pixels
from images.levels import Levels
from images.png import encode_png
from images.reading import AS_STORED
from images.stored import from_pixels
from trainer.data.decoding import decode_images
from trainer.settings.image import ImageSettings

RANDOM = np.random.RandomState(4)
RANGES = {
    "8 bits": ({}, (0, 255), False),
    "8 bits, narrow": ({"range": (20, 220)}, (20, 220), False),
    "16 bits": ({"depth": 16}, (0, 65535), False),
    "12 of 16 bits": ({"depth": 16, "range": (0, 4095)}, (0, 4095), False),
    "values": ({"depth": 16, "range": (-1000.0, 3000.0)}, (-1000, 3000), True),
    "small values": ({"depth": 16, "range": (0.25, 0.5)}, (0.25, 0.5), True),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", RANGES)
def test_files_are_decoded_to_the_pixels_again(name, channels):
    own, (low, high), are_values = RANGES[name]
    settings = ImageSettings(height_px=6, width_px=5, channels=channels, **own)
    file = (
        encoded_pixels(Shown(np.full((2, 2, 1), low, np.float32)))
        if are_values
        else from_pixels(np.zeros((2, 2), "u1")).encoded
    )
    record = {"image": settings.model_dump(mode="json"), "pixel_levels": [low, high]}
    levels = Levels.of_model(record, [file])
    pixels = RANDOM.rand(3, 6, 5, channels)
    if are_values:
        pixels = np.repeat(pixels[..., :1], channels, axis=3)
    images = levels.images(pixels)
    assert images.dtype == (np.uint8 if settings.depth == 8 else np.uint16)
    whole_levels = 1 / images.max() if are_values else 1 / (high - low)
    for given in (levels.files(images), [as_pixels(file, settings).encoded for file in levels.files(images)]):
        decoded = decode_images(tf.constant(given), settings).numpy()
        assert np.abs(decoded - images / np.iinfo(images.dtype).max).max() <= 0.51 * whole_levels + 1e-6
        for one, by_graph in zip(given, decoded, strict=True):
            assert levels.pixels(one) == pytest.approx(by_graph[..., : levels.pixels(one).shape[2]], abs=1e-6)


def test_a_model_without_levels_in_its_record_reads_8_bits():
    levels = Levels.of_model({"image": {"height_px": 4}}, [])
    assert levels == Levels()
    images = RANDOM.randint(0, 256, (2, 5, 6, 3)).astype("u1")
    assert levels.files(images) == list(encode_png(images))
    wide = RANDOM.randint(0, 65536, (5, 6)).astype("u2")
    assert np.array_equal(levels.pixels(from_pixels(wide).encoded)[..., 0], ((wide >> 8) / 255).astype("f4"))
    assert AS_STORED.depth == 16
