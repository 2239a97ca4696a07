"""The exported function resizes as the preprocessing does."""

import numpy as np
import pytest
import tensorflow as tf

from serving.exporting.decision import NotExportableError, decision_of, resized

SHAPE = (24, 17, 3)


@pytest.mark.parametrize("size", [(24, 17), (60, 51), (100, 33), (7, 90), (5, 4)])
@pytest.mark.parametrize("pads", [False, True])
def test_resizing_is_tensorflows_with_antialiasing(size: tuple[int, int], pads: bool) -> None:
    pixels = np.random.default_rng(0).random((1, *size, 3), np.float32)
    if pads:
        expected = tf.image.resize_with_pad(pixels, *SHAPE[:2], antialias=True)
    else:
        expected = tf.image.resize(pixels, SHAPE[:2], antialias=True)
    found = resized(tf.constant(pixels), SHAPE, keeps_aspect_ratio=pads)
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_range_of_values_is_refused_by_name(tmp_path) -> None:
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "autoencoder.json").write_text('{"image": {"depth": 16, "range": [0, 4095]}}')
    with pytest.raises(NotExportableError, match=r"image\.range \[0, 4095\] cannot be exported"):
        decision_of(tmp_path)
