"""Each augmentation changes images as named, identically for the same seed."""

import numpy as np
import pytest

from trainer.data.augmentation import augment
from trainer.settings.trainer import AugmentationSettings

IMAGE = np.random.default_rng(0).random((6, 6, 2), np.float32)
MANY = np.repeat(IMAGE[np.newaxis], 64, axis=0)


def augmented(seed=(1, 2), **settings):
    return augment(MANY, AugmentationSettings(**settings), np.array(seed, np.int64)).numpy()


def kinds(images, expected):
    """How many images equal each expected one; every image must equal one of them."""
    close = np.array([[np.allclose(image, candidate, atol=1e-5) for candidate in expected] for image in images])
    assert close.any(axis=1).all()
    return close.sum(axis=0)


def test_default_augmentation_changes_nothing():
    assert augmented() == pytest.approx(MANY, abs=1e-6)
    assert AugmentationSettings().changes_nothing
    assert not AugmentationSettings(brightness=0.1).changes_nothing


@pytest.mark.parametrize(("field", "flip"), [("flip_horizontal", np.fliplr), ("flip_vertical", np.flipud)])
def test_about_half_of_the_images_are_mirrored(field, flip):
    same, mirrored = kinds(augmented(**{field: True}), [IMAGE, flip(IMAGE)])
    assert same + mirrored == 64
    assert 16 <= mirrored <= 48


def test_brightness_is_added_to_all_pixels_of_an_image_and_clipped():
    images = augmented(brightness=0.3)
    added = [np.unique(np.round(image - IMAGE, 5)[(image > 0) & (image < 1)]) for image in images]
    assert all(np.ptp(values) < 1e-4 and abs(values[0]) <= 0.3 + 1e-5 for values in added)
    assert len({float(values[0]) for values in added}) > 32
    assert images.min() == 0.0
    assert images.max() == 1.0


def test_a_shift_moves_the_centre_by_at_most_shift_px():
    ramp = np.broadcast_to(np.arange(11, dtype=np.float32)[np.newaxis, :, np.newaxis] / 10, (64, 11, 11, 1))
    moved = augment(ramp, AugmentationSettings(shift_px=2), np.array([1, 2], np.int64)).numpy()[:, 5, 5, 0]
    shifts = (moved - 0.5) * 10
    assert np.abs(shifts).max() <= 2 + 1e-4
    assert np.ptp(shifts) > 3


def test_rotation_keeps_the_centre_and_moves_the_corner():
    dot = np.zeros((64, 9, 9, 1), np.float32)
    dot[:, 4, 4] = 1.0
    assert augment(dot, AugmentationSettings(rotate_degrees=90), np.array([3, 4], np.int64)).numpy()[
        :, 4, 4, 0
    ] == pytest.approx(np.ones(64), abs=1e-4)
    assert not np.allclose(augmented(rotate_degrees=90), MANY, atol=0.1)


def test_augmentation_is_determined_by_the_seed():
    settings = {"shift_px": 2, "rotate_degrees": 20, "brightness": 0.2, "flip_horizontal": True}
    assert np.array_equal(augmented(**settings), augmented(**settings))
    assert not np.array_equal(augmented(**settings), augmented(seed=(1, 3), **settings))
