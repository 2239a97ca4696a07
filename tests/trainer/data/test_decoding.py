"""Large images as the bytes of their levels: the same pixels as from `decode_images`, in less memory."""

import numpy as np
import pytest
import tensorflow as tf

from images.stored import from_pixels
from trainer.data.decoding import decode_images, decode_to_bytes
from trainer.data.pixel_bytes import to_pixels
from trainer.settings.image import ImageSettings

SIZE = (40, 60)


def settings(**own):
    return ImageSettings(**{
        "height_px": SIZE[0], "width_px": SIZE[1], "channels": 3, "tiles": {"height_px": 16, "width_px": 16}, **own
    })  # fmt: skip


def levels(size=SIZE, kind=np.uint8, channels=3):
    shape = (*size, channels)[: 3 if channels > 1 else 2]
    return np.random.default_rng(1).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)


def in_graph(compute, values):
    """As in the model's graph, which does not know the first and last dimension."""
    values = tf.constant(values)
    spec = tf.TensorSpec([None, *values.shape[1:-1], None][: values.shape.rank], values.dtype)
    return tf.function(compute, autograph=False, input_signature=[spec])(values).numpy()


@pytest.mark.parametrize(
    ("own", "given", "bytes_per_value"),
    [
        ({}, levels(), 1),
        ({"depth": 16}, levels(kind=np.uint16), 2),
        ({"depth": 16}, levels(), 2),
        ({"channels": 1}, levels(channels=1), 1),
        ({"channels": 1}, levels(), 1),
        ({"roi": {"box": [0.1, 0.2, 0.5, 0.9]}}, levels(), 1),
        ({}, levels((80, 90)), 4),
        ({"fit": "pad"}, levels((80, 90)), 4),
        ({"depth": 16, "range": [100.0, 3000.0]}, levels(kind=np.uint16), 4),
    ],
)
def test_bytes_are_the_decoded_pixels(own, given, bytes_per_value):
    image = settings(**own)
    encoded = [from_pixels(given).encoded]
    found = in_graph(lambda files: decode_to_bytes(files, image), encoded)
    assert found.shape == (1, *image.shape, bytes_per_value)
    assert found.dtype == np.uint8
    pixels = in_graph(lambda files: decode_images(files, image), encoded)
    assert in_graph(to_pixels, found) == pytest.approx(pixels, abs=2e-7)  # graphs multiply by a reciprocal


def test_levels_of_the_model_s_size_are_those_of_the_file():
    given = levels()
    found = in_graph(lambda files: decode_to_bytes(files, settings()), [from_pixels(given).encoded])
    assert np.array_equal(found[0, ..., 0], given)


def test_several_images_are_decoded_together():
    files = [from_pixels(levels(size)).encoded for size in (SIZE, (30, 50))]
    found = in_graph(lambda files: to_pixels(decode_to_bytes(files, settings())), files)
    assert found == pytest.approx(decode_images(tf.constant(files), settings()).numpy(), abs=2e-7)
