"""Synthetic defects have the stated size and are repeatable."""

import numpy as np
import pytest

from components.report import synthetic_defects as defects
from components.report.synthetic_defects import DEFECTS


def random(seed=0):
    return np.random.default_rng(seed)


def noise_image(shape=(40, 60)):
    return random(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("area", [0.01, 0.05, 0.2, 0.4])
def test_an_occlusion_covers_the_given_share_of_the_image(area):
    image = np.full((100, 100, 3), 90, np.uint8)
    covered = (defects.occlude(image, area, random()) != 90).all(axis=2)
    assert covered.mean() == pytest.approx(area, rel=0.1)
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    assert covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()  # one rectangle


@pytest.mark.parametrize(("background", "expected"), [(20, 255), (230, 0)])
def test_defects_are_white_on_dark_images_and_black_on_bright_ones(background, expected):
    image = np.full((20, 20), background, np.uint8)
    assert set(np.unique(defects.occlude(image, 0.1, random()))) == {background, expected}
    assert set(np.unique(defects.scratch(image, 0.5, random()))) == {background, expected}


def test_cut_and_paste_copies_a_rectangle_of_the_image_itself():
    image = np.arange(40 * 60).reshape(40, 60).astype(np.uint16)  # every pixel is unique
    pasted = defects.cut_and_paste(image, 0.1, random())
    changed = pasted != image
    assert changed.mean() == pytest.approx(0.1, rel=0.2)
    offsets = pasted[changed].astype(int) - image[changed]
    assert len(set(offsets)) == 1  # all shifted by the same distance


def test_a_scratch_is_as_long_as_the_given_share_of_the_diagonal():
    image = np.zeros((200, 150), np.uint8)
    rows, columns = np.nonzero(defects.scratch(image, 0.4, random(3)))
    assert np.hypot(np.ptp(rows), np.ptp(columns)) == pytest.approx(0.4 * 250, abs=5)


def test_blur_has_the_given_standard_deviation():
    image = np.zeros((101, 101), np.uint8)
    image[40:61, 40:61] = 255
    blurred = defects.blur(image, 0.05, random()).astype(float).sum(axis=0)
    x = np.arange(101)
    mean = (x * blurred).sum() / blurred.sum()
    variance = ((x - mean) ** 2 * blurred).sum() / blurred.sum()
    assert variance - (21**2 - 1) / 12 == pytest.approx((0.05 * 101) ** 2, rel=0.1)


def test_noise_and_brightness_are_in_units_of_the_pixel_range():
    image = np.full((200, 200), 128, np.uint8)
    assert defects.add_noise(image, 0.1, random()).std() == pytest.approx(25.5, rel=0.03)
    shifted = defects.change_brightness(image, 0.2, random())
    assert set(np.unique(np.abs(shifted.astype(int) - 128))) == {51}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.kind)
@pytest.mark.parametrize("shape", [(8, 8), (5, 31), (48, 48, 3)])
def test_every_kind_changes_a_copy_and_repeats_with_the_same_seed(defect, shape):
    image = noise_image(shape)
    original = image.copy()
    for size in (s for s in defect.sizes if s >= defect.smallest_size(*shape[:2])):
        damaged = defect.inject(image, size, random(7))
        assert damaged.shape == image.shape
        assert damaged.dtype == np.uint8
        assert (damaged == defect.inject(image, size, random(7))).all()
    assert (damaged != image).any()
    assert (image == original).all()
