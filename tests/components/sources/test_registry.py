"""Every source lists its images, or names the file or folder that is at fault."""

import gzip
import os
import struct

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.idx import read_idx
from components.sources.plan import Reject
from components.sources.registry import plan_source


def images_of(settings):
    return [image for shard in plan_source(settings).shards for image in shard.read()]


def folder_settings(path, **given):
    return DataSettings(source="folder", path=str(path), **given)


def write_image(path, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)


def write_idx(path, array):
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def test_digits_are_scikit_learns():
    images = images_of(DataSettings())
    assert len(images) == 1797
    assert [image.label for image in images[:4]] == ["0", "1", "2", "3"]
    assert len({image.image_id for image in images}) == 1797


def test_idx_rows_keep_their_order_labels_and_split(tmp_path):
    pixels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    write_idx(tmp_path / "train-images-idx3-ubyte", pixels)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([7, 8, 9], np.uint8))
    images = images_of(DataSettings(source="idx", path=str(tmp_path), images_per_shard=2))
    assert [image.label for image in images] == ["7", "8", "9"]
    assert {image.named_split for image in images} == {"train"}
    assert [image.stored.mean_intensity * 255 for image in images] == pytest.approx(pixels.mean(axis=(1, 2)))


def test_the_shard_size_does_not_change_images(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((10, 4, 4), np.uint8))
    one, many = (images_of(DataSettings(source="idx", path=str(tmp_path), images_per_shard=n)) for n in (100, 3))
    assert one == many


def test_gzip_files_are_unzipped(tmp_path):
    write_idx(tmp_path / "plain", np.array([[[1, 2], [3, 4]]], np.uint8))
    (tmp_path / "packed.gz").write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    assert read_idx(str(tmp_path / "packed.gz"), dimensions=3).tolist() == [[[1, 2], [3, 4]]]


def test_a_truncated_idx_file_is_refused(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 4), np.uint8))
    whole = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(whole[:-7])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: truncated.*3x4x4 = 48 bytes, but 41 follow"):
        plan_source(DataSettings(source="idx", path=str(tmp_path)))


def test_a_truncated_gzip_file_is_refused(tmp_path):
    write_idx(tmp_path / "plain", RANDOM_IMAGES)
    packed = gzip.compress((tmp_path / "plain").read_bytes())
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"ubyte.gz: damaged or incomplete gzip file"):
        plan_source(DataSettings(source="idx", path=str(tmp_path)))


def test_more_or_fewer_labels_than_images_are_refused(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 4), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(2, np.uint8))
    with pytest.raises(DataError, match="has 2 labels for the 3 images"):
        plan_source(DataSettings(source="idx", path=str(tmp_path)))


def test_a_flat_folder_has_no_labels(tmp_path):
    write_image(tmp_path / "b.png")
    write_image(tmp_path / "a.JPG")
    images = images_of(folder_settings(tmp_path))
    assert [(image.image_id, image.label, image.named_split, image.is_anomaly) for image in images] == [
        ("a.JPG", "", None, None),
        ("b.png", "", None, None),
    ]


def test_class_folders_become_labels(tmp_path):
    for path in ("cat/1.png", "dog/deep/2.png"):
        write_image(tmp_path / path)
    assert [image.label for image in images_of(folder_settings(tmp_path))] == ["cat", "dog"]


def test_the_mvtec_layout_has_splits_normality_and_masks(tmp_path):
    for path in ("train/good/1.png", "test/good/2.png", "test/scratch/3.png", "test/scratch/4.png"):
        write_image(tmp_path / path)
    write_image(tmp_path / "ground_truth/scratch/3_mask.png")
    seen = [
        (i.image_id, i.label, i.named_split, i.is_anomaly, bool(i.mask)) for i in images_of(folder_settings(tmp_path))
    ]
    assert seen == [
        ("test/good/2.png", "good", "test", 0, False),
        ("test/scratch/3.png", "scratch", "test", 1, True),
        ("test/scratch/4.png", "scratch", "test", 1, False),
        ("train/good/1.png", "good", "train", 0, False),
    ]


@pytest.mark.parametrize(
    ("train", "validation", "test", "normal"),
    [
        ("train", "valid", "test", "Good"),
        ("Train", "VALIDATION", "Test", "OK"),
        ("TRAIN", "val", "TEST", "normal"),
        ("train", "eval", "test", "defect-free"),
    ],
)
def test_usual_names_of_splits_and_normal_folders_are_known_however_they_are_spelt(
    tmp_path, train, validation, test, normal
):
    for path in (
        f"{train}/{normal}/1.png",
        f"{validation}/{normal}/2.png",
        f"{test}/{normal}/3.png",
        f"{test}/x/4.png",
    ):
        write_image(tmp_path / path)
    seen = {i.image_id[-5]: (i.named_split, i.is_anomaly, i.label) for i in images_of(folder_settings(tmp_path))}
    assert seen == {
        "1": ("train", 0, normal), "2": ("eval", 0, normal), "3": ("test", 0, normal), "4": ("test", 1, "x"),
    }  # fmt: skip


def test_a_folder_of_products_is_refused_and_a_product_is_named(tmp_path):
    for product in ("bottle", "cable", "zipper"):
        for path in ("train/good/1.png", "Test/crack/2.png", "ground_truth/crack/2_mask.png"):
            write_image(tmp_path / product / path)
    with pytest.raises(DataError) as refused:
        plan_source(folder_settings(tmp_path))
    assert str(refused.value) == (
        f"{tmp_path}: holds 3 products with folders train and test of their own (bottle, cable, zipper); a model "
        f"learns one product: set data.path to one of them, such as {tmp_path}/bottle"
    )
    assert len(images_of(folder_settings(tmp_path / "bottle"))) == 2


def test_splits_that_are_one_level_down_are_refused_with_their_folder(tmp_path):
    for path in ("bottle/v1/train/good/1.png", "bottle/v1/test/crack/2.png"):
        write_image(tmp_path / path)
    with pytest.raises(DataError, match=f"train and test are further down; set data.path to {tmp_path}/bottle/v1$"):
        plan_source(folder_settings(tmp_path))


def test_classes_named_like_one_split_stay_classes(tmp_path):
    for path in ("vehicles/train/1.png", "vehicles/bus/2.png"):
        write_image(tmp_path / path)
    assert {image.label for image in images_of(folder_settings(tmp_path))} == {"vehicles"}


def test_an_image_whose_mask_is_unusable_is_rejected(tmp_path):
    for path in ("train/good/1.png", "test/scratch/2.png", "test/scratch/3.png"):
        write_image(tmp_path / path, size=(6, 5))
    write_image(tmp_path / "ground_truth/scratch/2_mask.png", size=(5, 6))
    (tmp_path / "ground_truth/scratch/3_mask.png").touch()
    assert [image for image in images_of(folder_settings(tmp_path)) if isinstance(image, Reject)] == [
        Reject("test/scratch/2.png", "its mask ground_truth/scratch/2_mask.png: 5x6 pixels, but the image has 6x5"),
        Reject("test/scratch/3.png", "its mask ground_truth/scratch/3_mask.png: empty file"),
    ]


def test_the_fingerprint_changes_with_a_mask(tmp_path):
    for path in ("train/good/1.png", "test/scratch/2.png", "ground_truth/scratch/2_mask.png"):
        write_image(tmp_path / path)
    before = plan_source(folder_settings(tmp_path)).fingerprint
    os.utime(tmp_path / "ground_truth/scratch/2_mask.png", ns=(1, 1))
    assert plan_source(folder_settings(tmp_path)).fingerprint != before


def test_names_in_any_script_become_uris(tmp_path):
    write_image(tmp_path / "猫 1.png")
    assert images_of(folder_settings(tmp_path))[0].image_id == "%E7%8C%AB%201.png"


def test_a_linked_folder_cannot_loop(tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert len(images_of(folder_settings(tmp_path))) == 1


def test_unreadable_files_are_rejected_with_their_reason(tmp_path):
    write_image(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    rejects = [image for image in images_of(folder_settings(tmp_path)) if isinstance(image, Reject)]
    assert rejects == [
        Reject("empty.png", "empty file"),
        Reject("gone.png", "cannot be opened: No such file or directory"),
        Reject("text.png", "not an image in a supported format"),
    ]


def test_a_file_too_large_for_memory_is_rejected_unread(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**30 + 1)  # sparse
    assert images_of(folder_settings(tmp_path)) == [Reject("a.png", "1,073,741,825 bytes, more than 1,073,741,824")]


@pytest.mark.parametrize("source", ["idx", "folder", "numpy", "tfrecord", "csv"])
def test_a_source_of_files_needs_a_path(source):
    with pytest.raises(ValidationError, match=f"data.path is required for source '{source}'"):
        DataSettings(source=source)


def test_feature_names_apply_only_to_tfrecords(tmp_path):
    with pytest.raises(ValidationError, match="data.image_feature applies only to source 'tfrecord', not to 'folder'"):
        folder_settings(tmp_path, image_feature="jpeg")


@pytest.mark.parametrize(
    ("content", "message"),
    [([], "contains no images; found nothing"), (["notes.txt"], "contains no images; found 1 .txt file, supported")],
)
def test_the_error_for_a_folder_without_images_lists_its_files(tmp_path, content, message):
    for name in content:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        plan_source(folder_settings(tmp_path))


def test_skipped_files_are_counted_by_suffix(tmp_path):
    write_image(tmp_path / "a.png")
    for name in ("b.HEIC", "deeper/c.heic", "notes.txt", "LICENSE", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    plan = plan_source(folder_settings(tmp_path))
    assert (plan.image_count, plan.skipped) == (1, "2 .heic files, 1 .txt file, 1 suffixless file")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        plan_source(folder_settings(tmp_path / "nowhere"))


def test_the_fingerprint_changes_with_the_files(tmp_path):
    write_image(tmp_path / "a.png")
    before = plan_source(folder_settings(tmp_path)).fingerprint
    assert plan_source(folder_settings(tmp_path)).fingerprint == before
    os.utime(tmp_path / "a.png", ns=(1, 1))
    touched = plan_source(folder_settings(tmp_path)).fingerprint
    write_image(tmp_path / "b.png")
    added = plan_source(folder_settings(tmp_path)).fingerprint
    assert len({before, touched, added}) == 3


RANDOM_IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "valid", "test"), {"train", "eval", "test"}),
        (("Training", "DEV", "Testing"), {"train", "eval", "test"}),
        (("train", "validation"), {"train", "eval"}),
    ],
)
def test_folders_of_splits_have_their_usual_names(tmp_path, folders, splits):
    for folder in folders:
        write_image(tmp_path / folder / "cat/a.png")
    images = images_of(folder_settings(tmp_path))
    assert {image.named_split for image in images} == splits
    assert {image.label for image in images} == {"cat"}
    assert ("name splits but no test" in plan_source(folder_settings(tmp_path)).warning) == ("test" not in splits)


@pytest.mark.parametrize("folder", ["valid", "Dev", "cats/train"])
def test_a_class_named_like_a_split_is_warned_about(tmp_path, folder):
    write_image(tmp_path / folder / "a.png")
    write_image(tmp_path / "cat/b.png")
    warning = plan_source(folder_settings(tmp_path)).warning
    assert (f"the folders {folder} are classes, although" in warning) == ("/" not in folder)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("goood",), "no image has the label 'goood'; did you mean 'good'? (labels: 'bent', 'good')"),
        (("ok", "fine"), "no image has the label 'ok', 'fine' (labels: 'bent', 'good')"),
    ],
)
def test_normal_labels_that_no_image_has_are_refused_with_those_that_there_are(tmp_path, labels, said):
    for label in ("good", "bent"):
        (tmp_path / label).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / label / "a.png")
    with pytest.raises(DataError) as raised:
        plan_source(DataSettings(source="folder", path=str(tmp_path), normal_labels=labels))
    assert str(raised.value) == f"data.normal_labels: {said}"
    assert plan_source(DataSettings(source="folder", path=str(tmp_path), normal_labels=("good", *labels)))
