"""PNG files have the pixels of their arrays, with any filter."""

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from images.png import encode_png

IMAGES = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])).flatmap(
    lambda shape: arrays.arrays(np.uint8, shape)
)


@settings(deadline=None)
@given(IMAGES)
def test_pillow_reads_back_what_was_written(images):
    for pixels, encoded in zip(images, encode_png(images), strict=True):
        image = Image.open(io.BytesIO(encoded))
        assert image.mode == {1: "L", 3: "RGB"}[pixels.shape[2]]
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_each_image_gets_the_better_filter():
    gradient = np.tile(np.arange(0, 256, 2, dtype=np.uint8)[:, None], (1, 128))
    strokes = np.zeros((128, 128), np.uint8)
    strokes[::7, ::5] = 255
    smooth, sparse = encode_png(np.stack([gradient, strokes])[..., None])
    assert len(smooth) < 300  # of 16,384 pixels; 3,000 bytes unfiltered
    assert len(sparse) < 600


def test_an_image_has_the_same_bytes_alone_and_in_a_batch():
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    assert list(encode_png(images)) == [next(encode_png(images[row : row + 1])) for row in range(5)]
