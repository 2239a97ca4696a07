"""Arrays of images: .npy files and .npz files, as NumPy, Keras and MedMNIST write them."""

import io

import numpy as np
import pytest
from PIL import Image

from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.plan import Reject
from components.sources.registry import plan_source

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (5, 4, 6), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def settings_of(path, **given):
    return DataSettings(source="numpy", path=str(path), **given)


def images_of(path, **given):
    return [image for shard in plan_source(settings_of(path, **given)).shards for image in shard.read()]


def pixels_of(image):
    return np.asarray(Image.open(io.BytesIO(image.stored.encoded)))


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (GREY, GREY),
        (COLOUR, COLOUR),
        (GREY[..., None], GREY),
        ((GREY / 255).astype(np.float32), GREY),
        ((GREY / 255).astype(">f8"), GREY),
    ],
)
def test_every_row_is_an_image_with_its_pixels(tmp_path, saved, expected):
    np.save(tmp_path / "a.npy", saved)
    images = images_of(tmp_path / "a.npy", images_per_shard=2)
    assert [image.image_id for image in images] == [f"a.npy/{row:07d}" for row in range(5)]
    assert all(np.array_equal(pixels_of(image), row) for image, row in zip(images, expected, strict=True))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_has_labels_for_any_shard_size(tmp_path, save):
    save(tmp_path / "a.npz", images=GREY, labels=np.array(["a", "b", "c", "d", "é"]))
    one, many = (images_of(tmp_path / "a.npz", images_per_shard=n) for n in (100, 2))
    assert one == many
    assert [(image.label, image.named_split) for image in one] == [(label, None) for label in "abcdé"]
    assert np.array_equal(pixels_of(one[4]), GREY[4])


def test_keras_names_become_splits(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=GREY[:3], y_train=[[1], [2], [3]], x_test=GREY[3:], y_test=[4, 5])
    seen = [(image.image_id, image.label, image.named_split) for image in images_of(tmp_path / "a.npz")]
    assert seen == [
        ("a.npz/x_train/0000000", "1", "train"),
        ("a.npz/x_train/0000001", "2", "train"),
        ("a.npz/x_train/0000002", "3", "train"),
        ("a.npz/x_test/0000000", "4", "test"),
        ("a.npz/x_test/0000001", "5", "test"),
    ]


def test_medmnist_names_become_splits(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=GREY[:3], val_images=GREY[3:4], test_images=GREY[4:])
    assert plan_source(settings_of(tmp_path / "a.npz")).has_named_eval
    assert [image.named_split for image in images_of(tmp_path / "a.npz")] == ["train", "train", "train", "eval", "test"]


def test_max_images_takes_the_first_of_each_array(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=GREY, x_test=GREY)
    assert plan_source(settings_of(tmp_path / "a.npz", max_images=2)).image_count == 4
    assert [image.image_id[-1] for image in images_of(tmp_path / "a.npz", max_images=2)] == ["0", "1", "0", "1"]


def test_floats_outside_their_range_are_rejected_row_by_row(tmp_path):
    floats = np.full((3, 2, 2), 0.5)
    floats[1, 0, 0], floats[2, 1, 1] = 7.0, np.nan
    np.save(tmp_path / "a.npy", floats)
    assert images_of(tmp_path / "a.npy")[1:] == [
        Reject("a.npy/0000001", "values from 0.5 to 7; floats must be in [0, 1]"),
        Reject("a.npy/0000002", "values from nan to nan; floats must be in [0, 1]"),
    ]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.uint8), r"a.npy: has shape \(2, 3\); images are \[N, H, W\]"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"a.npy: has shape \(2, 3, 4, 4\)"),
        (np.zeros((2, 3, 4), np.int64), "a.npy: has type int64; save uint8, or floats"),
        (np.zeros((0, 3, 4), np.uint8), "a.npy: empty"),
        (np.array([[[None]]]), "a.npy: contains Python objects, which are never loaded"),
        (np.asfortranarray(GREY), "a.npy: stored in column-major \\(Fortran\\) order; save numpy.ascontiguousarray"),
    ],
)
def test_arrays_that_are_not_images_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message):
        plan_source(settings_of(tmp_path / "a.npy"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": GREY}, "a.npz: no array has a known name; found pictures; known are images, x, x_train"),
        ({"x": GREY, "y": [1, 2]}, "y.npy: has 2 labels for the 5 images of x.npy"),
        ({"x": GREY, "y": np.zeros((5, 2), int)}, r"y.npy: has type int64 and shape \(5, 2\); labels are"),
        ({"x": GREY, "y": np.zeros(5)}, "y.npy: has type float64"),
    ],
)
def test_archives_without_images_or_with_unusable_labels_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        plan_source(settings_of(tmp_path / "a.npz"))


def test_a_truncated_array_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", GREY)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-7])
    with pytest.raises(DataError, match="a.npy: truncated: 241 of 248 bytes"):
        plan_source(settings_of(tmp_path / "a.npy"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere.npy: no such file; set data.path to the .npy or .npz file"):
        plan_source(settings_of(tmp_path / "nowhere.npy"))


@pytest.mark.parametrize(("dtype", "error"), [("f4", 1e-6), ("f8", 1e-7), ("f2", 9e-4)])
def test_rounding_errors_are_accepted(tmp_path, dtype, error):
    floats = np.full((2, 2, 2), 0.5, dtype)
    floats[0, 0, 0], floats[0, 0, 1] = 1 + error, -error
    np.save(tmp_path / "a.npy", floats)
    [image, _] = images_of(tmp_path / "a.npy")
    assert pixels_of(image).tolist() == [[255, 0], [128, 128]]


def test_a_value_just_outside_the_range_is_printed_with_its_digits(tmp_path):
    np.save(tmp_path / "a.npy", np.full((1, 2, 2), 1.00004))
    assert images_of(tmp_path / "a.npy")[0].reason == "values from 1.00004 to 1.00004; floats must be in [0, 1]"


def test_one_array_of_colours_is_one_image(tmp_path):
    shape = (5, 7, 3)
    np.save(tmp_path / "a.npy", np.arange(np.prod(shape), dtype=np.uint8).reshape(shape))
    [image] = images_of(tmp_path / "a.npy")
    assert (image.stored.height_px, image.stored.width_px, image.stored.channels) == shape


def test_x_valid_is_held_out(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=GREY, x_valid=GREY[:2], y_valid=[1, 2])
    seen = [(image.named_split, image.label) for image in images_of(tmp_path / "a.npz")]
    assert seen[-2:] == [("eval", "1"), ("eval", "2")]
