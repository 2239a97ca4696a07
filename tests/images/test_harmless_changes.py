"""Harmless changes, compared with SciPy, with arithmetic on single pixels, and with Pillow's own JPEG files."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from images.harmless_changes import (
    STEADINESS,
    add_sensor_noise,
    apply_gamma,
    brighten,
    change_colour_temperature,
    change_picture,
    change_randomly,
    compress,
    defocus,
    move,
    shade,
)
from images.regions import Placement
from schema.changes import CHANGES

RANDOM = np.random.default_rng(5)
GREY = RANDOM.integers(0, 256, (30, 41), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (30, 41, 3), dtype=np.uint8)
TEXTURE = np.clip(3 * ndimage.gaussian_filter(COLOUR - 127.0, (1.5, 1.5, 0)) + 127, 0, 255).astype(np.uint8)
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def smooth(shape=(60, 80)):
    """A pattern without fine detail, which survives resampling: [H, W] uint8."""
    rows, columns = np.indices(shape)
    return np.round(127 + 60 * np.sin(rows / 9) + 60 * np.cos(columns / 7 + rows / 20)).astype(np.uint8)


def spot(shape, row, column):
    """A round spot with a standard deviation of 2 pixels, centred on pixel (row, column)."""
    rows, columns = np.indices(shape)
    return np.round(250 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8.0)).astype(np.uint8)


def centre_of_mass(image):
    return ndimage.center_of_mass(image.astype(float))


@pytest.mark.parametrize("name", STEADINESS)
@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_change_returns_a_new_image_of_the_same_kind(name, image):
    before = image.copy()
    changed = STEADINESS[name](image, np.random.default_rng(0))
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    assert not np.shares_memory(changed, image)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", STEADINESS)
def test_every_change_changes_a_texture_but_only_a_little(name):
    changed = STEADINESS[name](TEXTURE, np.random.default_rng(0)).astype(float)
    assert 0.3 < np.abs(changed - TEXTURE).mean() < 30


@pytest.mark.parametrize("name", STEADINESS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 9), (2, 9, 3), (8, 8)])
def test_tiny_images_are_changed_too(name, shape):
    image = np.full(shape, 100, np.uint8)
    assert np.abs(STEADINESS[name](image, np.random.default_rng(0)).astype(int) - 100).max() <= 30


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("darker_10", {0: 0, 10: 9, 100: 90, 255: 230}),  # 229.5 is rounded to even
        ("brighter_10", {0: 0, 10: 11, 100: 110, 240: 255}),
        ("darker_20", {0: 0, 10: 8, 100: 80, 255: 204}),
        ("brighter_20", {0: 0, 10: 12, 100: 120, 220: 255}),
        ("gamma_90", {0: 0, 64: 73, 128: 137, 255: 255}),  # 255 (64 / 255)^0.9 = 73.49, 255 (128 / 255)^0.9 = 137.14
        ("gamma_110", {0: 0, 64: 56, 128: 119, 255: 255}),  # 55.74, 119.47
    ],
)
def test_light_and_gamma_change_each_value_by_the_stated_amount(name, expected):
    changed = STEADINESS[name](RAMP, np.random.default_rng(0)).ravel()
    assert {value: int(changed[value]) for value in expected} == expected


def test_light_treats_all_channels_alike():
    assert np.array_equal(brighten(COLOUR, 0.9)[..., 1], brighten(COLOUR[..., 1], 0.9))
    assert np.array_equal(apply_gamma(COLOUR, 1.1)[..., 2], apply_gamma(COLOUR[..., 2], 1.1))


def test_shading_is_linear_between_the_edges_and_leaves_the_centre():
    flat = np.full((3, 5), 100, np.uint8)
    assert shade(flat, 0.1).tolist() == [[92, 96, 100, 104, 108]] * 3
    assert shade(flat, 0.0, 0.3)[:, 2].tolist() == [80, 100, 120]
    assert np.array_equal(shade(COLOUR, 0.1)[..., 0], shade(COLOUR[..., 0], 0.1))


def test_warmer_light_has_more_red_and_less_blue():
    pixel = np.full((1, 1, 3), 200, np.uint8)
    assert change_colour_temperature(pixel, 0.05).tolist() == [[[210, 200, 190]]]
    assert np.array_equal(change_colour_temperature(GREY, 0.05), GREY)


@pytest.mark.parametrize(("across", "down"), [(0.1, 0.0), (0.0, -0.05), (0.0125, 0.0125)])
def test_a_shift_moves_by_shares_of_width_and_height(across, down):
    row, column = centre_of_mass(move(spot((60, 80), 30, 40), across, down))
    assert column == pytest.approx(40 + 80 * across, abs=0.02)
    assert row == pytest.approx(30 + 60 * down, abs=0.02)


def test_a_whole_pixels_shift_copies_pixels_and_mirrors_the_edge():
    moved = move(COLOUR, 2 / 41, -1 / 30)
    assert np.array_equal(moved[:-1, 2:], COLOUR[1:, :-2])
    assert np.array_equal(moved[:-1, :2], COLOUR[1:, 1::-1])
    assert np.array_equal(moved[-1, 2:], COLOUR[-1, :-2])


@pytest.mark.parametrize("degrees", [1.0, -1.0, 20.0])
def test_a_rotation_turns_about_the_centre(degrees):
    height, width = 60, 80
    row, column = centre_of_mass(move(spot((height, width), 20, 60), 0.0, 0.0, degrees))
    # (29.5, 39.5) is the centre of the image in the coordinates of pixel centres; either sense of rotation will do.
    angle = np.deg2rad(degrees)
    down, across = 20 - 29.5, 60 - 39.5
    turned = [
        (
            29.5 + down * np.cos(angle) + sign * across * np.sin(angle),
            39.5 + across * np.cos(angle) - sign * down * np.sin(angle),
        )
        for sign in (1, -1)
    ]
    assert min(np.hypot(row - r, column - c) for r, c in turned) < 0.05


def test_a_rotation_is_scipys():
    image = smooth()
    expected = ndimage.rotate(image.astype(float), 1.0, reshape=False, order=1, mode="nearest")
    differences = [np.abs(move(image, 0.0, 0.0, angle) - expected).max() for angle in (1.0, -1.0)]
    assert min(differences) < 2.0
    assert max(differences) > 5.0


@pytest.mark.parametrize("degrees", [0.0, 1.0, -7.0, 27.0, 45.0, 90.0])
@pytest.mark.parametrize(("across", "down"), [(0.0, 0.0), (0.3, 0.3), (0.5, 0.5), (-0.5, 0.2), (0.2, -0.5)])
@pytest.mark.parametrize("shape", [(60, 60), (60, 20), (33, 90, 3), (1, 40)])
def test_no_black_corner_comes_into_a_moved_image(shape, across, down, degrees):
    assert (move(np.full(shape, 180, np.uint8), across, down, degrees) == 180).all()


def test_jpeg_is_pillows_at_the_stated_quality():
    image = np.stack([smooth(), smooth()[::-1], smooth()[:, ::-1]], axis=-1)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85)
    tables = Image.open(io.BytesIO(file.getvalue())).quantization
    assert tables[0][0] == 5  # ITU-T T.81, table K.1 begins with 16; libjpeg scales it by 30 % for quality 85
    assert np.array_equal(compress(image, 85), np.asarray(Image.open(file)))


def test_noise_has_the_stated_deviation_and_no_bias():
    flat = np.full((200, 200, 3), 128, np.uint8)
    noise = add_sensor_noise(flat, 2.0, np.random.default_rng(1)).astype(float) - 128
    assert noise.mean() == pytest.approx(0.0, abs=0.03)
    assert noise.std() == pytest.approx(np.sqrt(4 + 1 / 12), rel=0.01)  # rounding adds 1/12
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02


def test_noise_does_not_wrap_around():
    for value in (0, 255):
        noisy = add_sensor_noise(np.full((50, 50), value, np.uint8), 2.0, np.random.default_rng(1))
        assert np.abs(noisy.astype(int) - value).max() < 12


@pytest.mark.parametrize("deviation_px", [0.5, 0.7, 1.5])
def test_a_blur_is_scipys_gaussian_inside_the_image(deviation_px):
    image = RANDOM.integers(0, 256, (40, 50), dtype=np.uint8)
    expected = ndimage.gaussian_filter(image.astype(float), deviation_px, mode="nearest")
    difference = (defocus(image, deviation_px) - expected)[5:-5, 5:-5]
    assert np.abs(difference).mean() < 0.1 * np.abs(image - expected).mean()


def test_the_same_random_numbers_give_the_same_change():
    for change in (STEADINESS["noise_2"], lambda image, random: change_randomly(image, CHANGES, random)):
        first, again, other = (change(COLOUR, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


def test_only_the_chosen_kinds_change_an_image_at_random():
    assert np.array_equal(change_randomly(COLOUR, (), np.random.default_rng(0)), COLOUR)
    centred = spot((101, 101), 50, 50)
    for seed in range(20):
        turned = change_randomly(centred, ("rotation",), np.random.default_rng(seed))
        assert centre_of_mass(turned) == pytest.approx((50, 50), abs=0.02)
        shifted = change_randomly(centred, ("shift",), np.random.default_rng(seed))
        assert shifted.sum() == pytest.approx(centred.sum(), rel=0.02)  # Pillow cuts off fractions of a level
        lit = change_randomly(np.full((9, 9, 3), 100, np.uint8), ("light",), np.random.default_rng(seed))
        assert 100 * 0.85**1.1 * 0.7 < lit.min() <= lit.max() < 100 * 1.15 * 1.35


@pytest.mark.parametrize("kind", CHANGES)
def test_every_kind_changes_some_images_at_random_and_none_by_much(kind):
    changed = [change_randomly(TEXTURE, (kind,), np.random.default_rng(seed)).astype(float) for seed in range(30)]
    differences = [np.abs(one - TEXTURE).mean() for one in changed]
    assert sum(difference > 0 for difference in differences) >= 5
    assert max(differences) < 40


def test_random_shifts_reach_one_percent_in_every_direction():
    centred = spot((200, 100), 100, 50)
    moves = np.array(
        [centre_of_mass(change_randomly(centred, ("shift",), np.random.default_rng(seed))) for seed in range(200)]
    ) - (100, 50)
    assert np.abs(moves).max(axis=0) == pytest.approx([2.0, 1.0], rel=0.05)
    assert moves.min(axis=0) == pytest.approx([-2.0, -1.0], rel=0.1)


@pytest.mark.parametrize("name", STEADINESS)
def test_16_bits_change_as_8_bits_do(name):
    """Within a level of 8 bits, and two where Pillow rounds in between."""
    smooth = np.add.outer(np.arange(48) * 2, np.arange(40) * 3)
    for image in (smooth, np.stack([smooth, smooth[::-1], smooth[:, ::-1]], axis=2)):
        eight = image.astype(np.uint8)
        changed = STEADINESS[name](eight.astype(np.uint16) * 257, np.random.default_rng(0))
        expected = STEADINESS[name](eight, np.random.default_rng(0))
        assert changed.dtype == np.uint16
        assert np.abs(changed / 257 - expected).max() <= 2


def test_16_bits_keep_faint_differences():
    faint = np.full((16, 16), 30_000, np.uint16)
    faint[8:] += 40  # less than a sixth of a level of 8 bits
    for change in (lambda one: brighten(one, 1.1), lambda one: move(one, 0.1, 0.0), lambda one: defocus(one, 0.7)):
        assert 30 < int(change(faint)[14, 8]) - int(change(faint)[1, 8]) < 50


def of_photograph(side_px, reduced_px, dtype=np.uint8):
    """(a photograph's texture [S, S, 3], the same reduced to [R, R, 3]) of 8 or 16 bits."""
    random = np.random.default_rng(2)
    texture = ndimage.gaussian_filter(random.standard_normal((side_px, side_px, 3)), (2.0, 2.0, 0.5))
    photograph = np.clip(127 + 40 * texture / texture.std(), 0, 255).astype(np.uint8)
    reduced = np.asarray(Image.fromarray(photograph).resize((reduced_px, reduced_px), Image.Resampling.BILINEAR))
    scale = np.iinfo(dtype).max // 255
    return photograph.astype(dtype) * scale, reduced.astype(dtype) * scale


def placed(source_px, size_px, *, is_padded=False):
    return Placement.on_map(source_px, size_px, is_padded=is_padded)


@pytest.mark.parametrize(
    ("name", "of_picture"), [("jpeg_85", (0.5, 1.2)), ("noise_2", (0.7, 1.3)), ("blur", (0.4, 1.2))]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_arises_in_the_camera_is_as_weak_as_in_a_photograph_reduced_afterwards(name, of_picture, dtype):
    photograph, reduced = of_photograph(600, 150, dtype)
    as_taken = STEADINESS[name](photograph, np.random.default_rng(0))
    white = np.iinfo(dtype).max
    planes = [Image.fromarray((255.0 / white * plane).astype(np.float32)) for plane in np.moveaxis(as_taken, 2, 0)]
    expected = np.stack([np.asarray(plane.resize((150, 150), Image.Resampling.BILINEAR)) for plane in planes], axis=-1)
    changed = change_picture(name, reduced, np.random.default_rng(0), picture=placed((600, 600), (150, 150)))

    def deviation(image):
        return np.std(255.0 / white * image.astype(float) - 255.0 / white * reduced)

    rounding = 0.29 if dtype == np.uint8 else 0.0
    low, high = of_picture
    assert low * np.std(expected - 255.0 / white * reduced) - rounding < deviation(changed)
    assert deviation(changed) < high * np.std(expected - 255.0 / white * reduced) + rounding
    assert deviation(changed) < 0.7 * deviation(STEADINESS[name](reduced, np.random.default_rng(0)))


@pytest.mark.parametrize("name", STEADINESS)
@pytest.mark.parametrize("image", [GREY, GREY[..., np.newaxis], COLOUR], ids=["grey", "one channel", "colour"])
def test_a_picture_in_its_own_size_is_changed_as_it_is(name, image):
    changed = change_picture(name, image, np.random.default_rng(0), picture=placed((30, 41), (30, 41)))
    expected = STEADINESS[name](image.squeeze(), np.random.default_rng(0))
    assert np.array_equal(changed, expected.reshape(image.shape))


@pytest.mark.parametrize("name", STEADINESS)
def test_bars_around_a_picture_stay_as_they_are(name):
    framed = np.zeros((41, 41, 3), np.uint8)
    framed[10:31] = TEXTURE[:21]
    changed = change_picture(
        name, framed, np.random.default_rng(0), picture=placed((210, 410), (41, 41), is_padded=True)
    )
    assert not changed[:10].any()
    assert not changed[31:].any()
    assert changed[10:31].any()


@pytest.mark.parametrize("source_px", [(9, 12), (1, 1), (30_000, 41_000), (100_000, 3)])
@pytest.mark.parametrize("name", STEADINESS)
def test_pictures_of_any_size_are_changed(name, source_px):
    changed = change_picture(name, COLOUR, np.random.default_rng(0), picture=placed(source_px, (30, 41)))
    assert (changed.shape, changed.dtype) == (COLOUR.shape, np.uint8)
