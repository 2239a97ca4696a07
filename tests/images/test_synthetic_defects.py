"""Faint defects: how strong they are, where they are, and that a seed decides both."""

import numpy as np
import pytest

from images.synthetic_defects import CONTRAST, KINDS, MIX, MOST_SPREADS, line_mask, paint

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.uniform(0.2, 0.8, (6, 40, 56, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_changes_every_image_within_the_range_and_leaves_the_original(kind):
    before = IMAGES.copy()
    painted = paint(IMAGES, kind, seed=1)
    assert np.array_equal(IMAGES, before)
    assert painted.shape == IMAGES.shape
    assert painted.dtype == np.float32
    assert (np.abs(painted - IMAGES).max(axis=(1, 2, 3)) > 0.05).all()
    assert painted.min() >= 0.0
    assert painted.max() <= 1.0


@pytest.mark.parametrize(("kind", "smallest", "largest"), [("scratch", 0.002, 0.03), ("blob", 0.002, 0.1)])
def test_strokes_and_spots_have_the_contrast_in_one_direction_and_cover_little(kind, smallest, largest):
    change = paint(IMAGES, kind, seed=1) - IMAGES
    for one in change:
        assert np.abs(one).max() == pytest.approx(CONTRAST, abs=0.02)
        assert (one >= -1e-6).all() or (one <= 1e-6).all()
        assert smallest < (np.abs(one).max(axis=-1) > CONTRAST / 2).mean() < largest


@pytest.mark.parametrize("kind", ["scratch", "blob", "shade"])
@pytest.mark.parametrize("levels", [256, 65536])
def test_a_defect_of_a_dark_picture_is_faint_beside_what_the_picture_shows(kind, levels):
    """Twelve bits in a file of sixteen are dark; 12 % of the range is fifteen times what such a picture varies by."""
    dark = np.round(IMAGES * levels / 16).astype(np.uint8 if levels == 256 else np.uint16)
    change = np.abs(paint(dark, kind, seed=1).astype(float) - dark).max(axis=(1, 2, 3))
    strongest = MOST_SPREADS * dark.std(axis=(1, 2, 3))
    assert (change <= strongest + 1).all()
    assert (change >= strongest / 2).all()
    assert (change < CONTRAST * levels / 4).all()


def test_a_shade_covers_much_of_the_image():
    change = np.abs(paint(IMAGES, "shade", seed=1) - IMAGES).max(axis=-1)
    assert ((change > CONTRAST / 2).mean(axis=(1, 2)) > 0.08).all()


@pytest.mark.parametrize(("value", "sign"), [(0.0, 1), (1.0, -1)])
def test_black_images_get_brighter_and_white_ones_darker(value, sign):
    flat = np.full((2, 20, 20, 1), value, np.float32)
    for kind in ("scratch", "blob", "shade"):
        assert (np.sign((paint(flat, kind, seed=4) - flat).sum(axis=(1, 2, 3))) == sign).all()


def test_a_patch_is_half_of_another_image_in_one_box():
    flat = np.stack([np.full((40, 56, 1), value, np.float32) for value in (0.2, 0.8)])
    painted = paint(flat, "patch", seed=2)
    for image, own, other in zip(painted, (0.2, 0.8), (0.8, 0.2), strict=True):
        rows, columns = np.nonzero(np.abs(image[..., 0] - own) > 1e-6)
        box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert np.allclose(box, (1 - MIX) * own + MIX * other)
        assert 4 <= box.shape[0] <= 10
        assert 6 <= box.shape[1] <= 14


def test_a_cutout_mixes_the_part_in_the_middle_with_the_colour_of_the_frame():
    image = np.full((1, 40, 40, 1), 0.9, np.float32)
    image[:, 12:28, 12:28] = 0.1
    changed = paint(image, "cutout", seed=3) != image
    assert changed.any()
    assert np.allclose(paint(image, "cutout", seed=3)[changed], 0.5)
    assert not changed[0, :12].any()


@pytest.mark.parametrize("kind", KINDS)
def test_seed_and_number_decide_the_defect_whatever_the_batch(kind):
    whole = paint(IMAGES, kind, seed=7)
    parts = [paint(IMAGES[[row, (row + 1) % 6]], kind, seed=7, first=row)[0] for row in range(6)]
    assert np.array_equal(whole, np.stack(parts))
    assert not np.array_equal(whole, paint(IMAGES, kind, seed=8))


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_get_the_same_defect_as_floats(kind):
    levels = np.round(IMAGES * 255).astype(np.uint8)
    painted = paint(levels, kind, seed=5)
    assert painted.dtype == np.uint8
    assert np.abs(painted / 255.0 - paint(levels / 255.0, kind, seed=5)).max() < 0.5 / 255 + 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 3), (8, 8, 1)])
def test_tiny_images_are_painted_too(kind, shape):
    painted = paint(RANDOM.random((3, *shape)).astype(np.float32), kind, seed=0)
    assert np.isfinite(painted).all()


def test_a_line_is_as_long_and_wide_as_it_says():
    mask = line_mask((50, 50), (25.0, 25.0), 0.0, 20.0, 4.0)
    assert mask.sum() == pytest.approx(20 * 4, rel=0.05)
    assert mask[23:27, 16:34].min() == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_16_bits_get_the_same_defects(kind):
    images = np.random.default_rng(1).integers(0, 256, (3, 24, 20, 1), dtype=np.uint8)
    wide = paint(images.astype(np.uint16) * 257, kind, seed=5)
    assert wide.dtype == np.uint16
    assert np.abs(wide / 257 - paint(images, kind, seed=5)).max() <= 0.51
