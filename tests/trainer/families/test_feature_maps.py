"""Joined feature maps: maps of all strides show the same place of an image at the same position, at any size."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.backbones.loading import load_backbone
from trainer.families.feature_maps import FeatureMaps

CHANNELS = {4: slice(0, 24), 8: slice(24, 64), 16: slice(64, 176)}
"""Of each stride, in the joined maps of EfficientNet-Lite0."""
WIDTH_PX = 96


def displacements(height_px):
    """How far below where it is a change is shown, in pixels, by maps of each stride: {stride: [n places]}."""
    maps = FeatureMaps(load_backbone("efficientnet-lite0"), (height_px, WIDTH_PX, 3))
    noise = np.random.default_rng(0).standard_normal((1, height_px, WIDTH_PX, 3))
    plain = (0.5 + 0.02 * noise).astype(np.float32)
    tops = np.arange(32, height_px - 40, 8)
    changed = np.repeat(plain, len(tops), axis=0)
    for image, top in zip(changed, tops, strict=True):
        image[top : top + 8, 44:52] += 0.3
    difference = np.square(maps(tf.constant(changed)).numpy() - maps(tf.constant(plain)).numpy())
    centres = (np.arange(maps.shape[0]) + 0.5) * height_px / maps.shape[0]
    found = {}
    for stride, channels in CHANNELS.items():
        by_row = difference[..., channels].sum(axis=(2, 3))
        by_row[by_row < 0.25 * by_row.max(axis=1, keepdims=True)] = 0.0
        found[stride] = by_row @ centres / by_row.sum(axis=1) - (tops + 4)
    return found


@pytest.mark.parametrize("height_px", [168, 184])
def test_a_change_is_shown_at_the_same_place_if_the_side_is_no_multiple_of_the_largest_stride(height_px):
    expected, found = displacements(160), displacements(height_px)
    for stride in CHANNELS:
        assert found[stride].mean() == pytest.approx(expected[stride].mean(), abs=0.5), f"stride {stride}"
        assert abs(found[stride].mean()) < 2


def test_maps_cover_images_of_any_size():
    backbone = load_backbone("efficientnet-lite0")
    sizes = {(224, 224, 3): (28, 28), (168, 100, 3): (21, 13), (28, 28, 1): (4, 4), (8, 8, 1): (1, 1)}
    for shape, expected in sizes.items():
        maps = FeatureMaps(backbone, shape)
        assert maps.shape == (*expected, 176)
        assert maps(tf.zeros((2, *shape))).shape == (2, *expected, 176)
