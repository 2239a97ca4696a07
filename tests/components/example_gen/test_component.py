"""ImageExampleGen converts images of every source to examples, and removes duplicates from `test`."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfx.types import standard_artifacts

from components.example_gen.component import EXAMPLES_KEY, ImageExampleGenExecutor
from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.registry import plan_source
from images.reading import EIGHT_BITS, Reading
from runtime.tfrecords import read_counts

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (40, 6, 7), dtype=np.uint8)


def generate(folder, settings, fingerprint=None, reading=EIGHT_BITS):
    """Runs the executor; returns the identifiers of the images in each split, and the rejects."""
    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    fingerprint = fingerprint or plan_source(settings).fingerprint
    properties = {
        "settings": settings.model_dump_json(),
        "reading": reading.model_dump_json(),
        "data_fingerprint": fingerprint,
    }
    ImageExampleGenExecutor().Do({}, {EXAMPLES_KEY: [examples]}, properties)
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    return {split: ids_of(folder / f"Split-{split}") for split in ("train", "eval", "test")}, rejects


def ids_of(folder):
    return [image_id.decode() for image_id in values_of(folder, "image_id")]


def values_of(folder, feature):
    paths = sorted(map(str, folder.glob("*")))
    examples = map(tf.train.Example.FromString, tf.data.TFRecordDataset(paths).as_numpy_iterator())
    return [example.features.feature[feature].bytes_list.value[0] for example in examples]


def numpy_source(folder):
    np.savez(folder / "a.npz", images=IMAGES, labels=np.arange(40))
    return DataSettings(source="numpy", path=str(folder / "a.npz"), images_per_shard=7)


def tfrecord_source(folder):
    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as writer:
        for pixels in IMAGES:
            value = tf.train.BytesList(value=[tf.io.encode_png(pixels[..., None]).numpy()])
            feature = {"image": tf.train.Feature(bytes_list=value)}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return DataSettings(source="tfrecord", path=str(folder / "a.tfrecord"), images_per_shard=7)


def csv_source(folder):
    for row, pixels in enumerate(IMAGES):
        Image.fromarray(pixels).save(folder / f"{row}.png")
    (folder / "a.csv").write_text("path\n" + "".join(f"{row}.png\n" for row in range(40)))
    return DataSettings(source="csv", path=str(folder / "a.csv"), images_per_shard=7)


@pytest.mark.parametrize("source", [numpy_source, tfrecord_source, csv_source])
def test_every_image_is_in_one_split(source, tmp_path):
    (tmp_path / "data").mkdir()
    splits, rejects = generate(tmp_path / "examples", source(tmp_path / "data"))
    assert len({image_id for ids in splits.values() for image_id in ids}) == 40
    assert {split: len(ids) for split, ids in splits.items()} | {
        "left_out": 0,
        "rejected": 0,
        "duplicates": 0,
    } == read_counts(str(tmp_path / "examples"))
    assert not rejects


def test_anomalies_left_out_of_training_splits_are_counted(tmp_path):
    labels = np.arange(20) % 4
    arrays = {"x_train": IMAGES[:20], "y_train": labels, "x_test": IMAGES[20:], "y_test": labels}
    np.savez(tmp_path / "a.npz", **arrays)
    data = {"source": "numpy", "path": str(tmp_path / "a.npz"), "normal_labels": [1], "eval_fraction": 0.5}
    settings = DataSettings(**data, training_anomalies="leave_out")
    splits, _ = generate(tmp_path / "examples", settings)
    assert len(splits["train"]) + len(splits["eval"]) == 5
    assert len(splits["test"]) == 20
    assert read_counts(str(tmp_path / "examples"))["left_out"] == 15


def duplicates_source(folder):
    """In test: a copy of 3, a copy of 4 in another format, and a pair of duplicates of its own."""
    for row in range(20):
        write(folder / "train" / f"{row:02d}.png", IMAGES[row])
    write(folder / "test/a.png", IMAGES[3])
    write(folder / "test/b.bmp", IMAGES[4])
    write(folder / "test/c.png", IMAGES[30])
    write(folder / "test/d.png", IMAGES[30])
    return DataSettings(source="folder", path=str(folder), images_per_shard=3, max_reject_fraction=0)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_duplicates_are_removed_from_test_and_listed_without_stopping_the_run(tmp_path):
    splits, rejects = generate(tmp_path / "examples", duplicates_source(tmp_path / "data"))
    assert splits["test"] == ["test/c.png", "test/d.png"]
    assert len(splits["train"]) + len(splits["eval"]) == 20
    assert rejects == [
        {"image_id": "test/a.png", "reason": "duplicate of train/03.png"},
        {"image_id": "test/b.bmp", "reason": "duplicate of train/04.png"},
    ]
    counts = read_counts(str(tmp_path / "examples"))
    assert (counts["test"], counts["rejected"], counts["duplicates"]) == (2, 0, 2)


def test_an_example_has_the_same_bytes_from_every_worker(tmp_path):
    """Features are sorted by name; unsorted, their order would differ between processes."""
    (tmp_path / "data").mkdir()
    generate(tmp_path / "examples", numpy_source(tmp_path / "data"))
    path = next((tmp_path / "examples/Split-train").glob("*"))
    record = next(iter(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()))
    names = sorted(tf.train.Example.FromString(record).features.feature)
    positions = [record.index(bytes([len(name)]) + name.encode() + b"\x12") for name in names]
    assert positions == sorted(positions)


def test_a_shard_without_accepted_images_does_not_affect_others(tmp_path, caplog):
    for row in range(40):
        write(tmp_path / "data" / f"{row:02d}.png", IMAGES[row])
    (tmp_path / "data/zzz.png").write_bytes(b"not a picture")
    settings = DataSettings(source="folder", path=str(tmp_path / "data"), images_per_shard=20)
    splits, rejects = generate(tmp_path / "examples", settings)
    assert sum(map(len, splits.values())) == 40
    assert rejects == [{"image_id": "zzz.png", "reason": "not an image in a supported format"}]
    [message] = [record.getMessage() for record in caplog.records if hasattr(record, "notice")]
    assert message == f"1 of 41 images cannot be read; see {tmp_path}/examples/rejects.jsonl"


def test_a_folder_without_readable_images_fails(tmp_path):
    (tmp_path / "data").mkdir()
    for row in range(6):
        (tmp_path / "data" / f"{row}.png").touch()
    with pytest.raises(DataError, match=r"6 of 6 images cannot be read, more than data\.max_reject_fraction"):
        generate(tmp_path / "examples", DataSettings(source="folder", path=str(tmp_path / "data")))


def test_labels_are_utf8_for_any_folder_name(tmp_path):
    """TFMA rejects other labels, but only after the training."""
    for row in range(40):
        write(tmp_path / "data" / os.fsdecode((b"\xff\xfe bad", "gut ü".encode())[row % 2]) / f"{row}.png", IMAGES[row])
    generate(tmp_path / "examples", DataSettings(source="folder", path=str(tmp_path / "data")))
    labels = {
        label
        for split in ("train", "eval", "test")
        for label in values_of(tmp_path / f"examples/Split-{split}", "label")
    }
    assert {label.decode("utf-8") for label in labels} == {"\ufffd\ufffd bad", "gut ü"}


def test_a_file_that_changes_after_it_was_listed_fails_the_component(tmp_path):
    """Otherwise the cache key would have the fingerprint of other files than those that were read."""
    settings = duplicates_source(tmp_path / "data")
    fingerprint = plan_source(settings).fingerprint
    write(tmp_path / "data/train/00.png", IMAGES[31])
    with pytest.raises(DataError, match=r"data: files changed while they were being read; run again"):
        generate(tmp_path / "here", settings, fingerprint)
    plan_source(DataSettings())  # another process has not listed the files before
    with pytest.raises(DataError, match=r"data: files changed after the run had listed them; start a new run"):
        generate(tmp_path / "elsewhere", settings, fingerprint)


def test_a_run_lists_its_files_once(tmp_path):
    """A file that is added after the first listing belongs to the next run."""
    settings = duplicates_source(tmp_path / "data")
    fingerprint = plan_source(settings).fingerprint
    write(tmp_path / "data/test/new.png", IMAGES[32])
    splits, _ = generate(tmp_path / "examples", settings, fingerprint)
    assert splits["test"] == ["test/c.png", "test/d.png"]


def test_a_named_version_needs_no_fingerprint(tmp_path):
    """The user vouches for the files of a version, whatever their modification times."""
    splits, _ = generate(tmp_path / "examples", duplicates_source(tmp_path / "data"), "named: 2024-05")
    assert splits["test"] == ["test/c.png", "test/d.png"]


def test_dropped_pages_and_masks_that_are_mostly_grey_are_counted(tmp_path, caplog):
    for row in range(40):
        write(tmp_path / f"data/train/good/{row:02d}.png", IMAGES[row])
    pages = [Image.fromarray(page) for page in np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)]
    (tmp_path / "data/test/crack").mkdir(parents=True)
    pages[0].save(tmp_path / "data/test/crack/a.tif", save_all=True, append_images=pages[1:])
    write(tmp_path / "data/ground_truth/crack/a_mask.png", np.tile(np.arange(0, 256, 32, dtype=np.uint8), (8, 1)))
    generate(tmp_path / "examples", DataSettings(source="folder", path=str(tmp_path / "data")))
    counts = read_counts(str(tmp_path / "examples"))
    assert (counts["pages_dropped"], counts["blurred_masks"]) == (2, 1)
    assert "2 pages of TIFF files are ignored" in caplog.text
    assert "1 masks have many pixels that are neither black nor white" in caplog.text


def test_the_remedy_for_identical_images_mentions_duplicates(tmp_path):
    for row in range(40):
        write(tmp_path / f"data/{row:02d}.png", IMAGES[0])
    with pytest.raises(DataError, match=r"no images in split 'test'.*; \d+ duplicates of other images were left out"):
        generate(tmp_path / "examples", DataSettings(source="folder", path=str(tmp_path / "data")))


def test_files_that_use_12_of_16_bits_are_noticed_at_a_depth_of_8(tmp_path, caplog):
    for row, image in enumerate(RANDOM.integers(0, 4096, (40, 6, 7), dtype=np.uint16)):
        write(tmp_path / f"data/{row:02d}.png", image)
    settings = DataSettings(source="folder", path=str(tmp_path / "data"))
    generate(tmp_path / "sixteen", settings, reading=Reading(depth=16))
    assert "grey levels" not in caplog.text
    generate(tmp_path / "eight", settings)
    assert "use only 12 of them" in caplog.text
    assert "only 16 grey levels are left; set image.depth: 16 and image.range: [0, 4095]" in caplog.text


def test_files_of_levels_and_of_values_under_one_range_are_noticed(tmp_path, caplog):
    for row in range(40):
        write(tmp_path / f"data/{row:02d}.png", IMAGES[row])
    (tmp_path / "floats").mkdir()
    for row in range(40):
        Image.fromarray(IMAGES[row].astype(np.float32)).save(tmp_path / f"floats/{row:02d}.tif")
    reading = Reading(depth=16, range=(0, 255))
    for folder in ("data", "floats"):
        generate(
            tmp_path / f"only_{folder}", DataSettings(source="folder", path=str(tmp_path / folder)), reading=reading
        )
    assert read_counts(str(tmp_path / "only_floats"))["with_values"] == 40
    assert "values in units" not in caplog.text
    shutil.copy(tmp_path / "floats/00.tif", tmp_path / "data/odd.tif")
    generate(tmp_path / "both", DataSettings(source="folder", path=str(tmp_path / "data")), reading=reading)
    assert "1 images hold values in units of their own, such as floats, and 40 hold levels" in caplog.text


def test_all_pages_become_images_and_stay_in_one_split(tmp_path):
    stacks = RANDOM.integers(0, 65536, (40, 3, 6, 7), dtype=np.uint16)
    (tmp_path / "data").mkdir()
    for row, stack in enumerate(stacks):
        pages = [Image.fromarray(page) for page in stack[: 1 + row % 3]]
        pages[0].save(tmp_path / f"data/{row:02d}.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "excluded.txt").write_text("01.tif#2\n02.tif\n")
    settings = DataSettings(source="folder", path=str(tmp_path / "data"), exclude=str(tmp_path / "excluded.txt"))
    reading = Reading(depth=16, page="all")
    splits, rejects = generate(tmp_path / "examples", settings, reading=reading)
    expected = {f"{row:02d}.tif{f'#{page}' if row % 3 else ''}" for row in range(40) for page in range(1, 2 + row % 3)}
    excluded = {"01.tif#2", "02.tif#1", "02.tif#2", "02.tif#3"}
    assert {image_id for ids in splits.values() for image_id in ids} == expected - excluded
    assert {reject["image_id"] for reject in rejects} == excluded
    split_of_file = {(image_id.partition("#")[0], split) for split, ids in splits.items() for image_id in ids}
    assert len(split_of_file) == 39
    assert "pages_dropped" not in read_counts(str(tmp_path / "examples"))
    folder = tmp_path / "examples/Split-train"
    for image_id, encoded in zip(ids_of(folder), values_of(folder, "image"), strict=True):
        row, page = int(image_id[:2]), int(image_id.partition("#")[2] or 1) - 1
        assert np.array_equal(tf.io.decode_png(encoded, dtype=tf.uint16)[..., 0], stacks[row, page])


def test_a_page_that_does_not_exist_cannot_be_excluded(tmp_path):
    for row in range(40):
        write(tmp_path / f"data/{row:02d}.png", IMAGES[row])
    (tmp_path / "excluded.txt").write_text("01.png#2\n")
    settings = DataSettings(source="folder", path=str(tmp_path / "data"), exclude=str(tmp_path / "excluded.txt"))
    with pytest.raises(DataError, match="no image is named 01.png#2"):
        generate(tmp_path / "examples", settings)
