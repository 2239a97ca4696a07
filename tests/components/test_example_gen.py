"""ImageExampleGen as TFX runs it: images of every source become examples, and `test` holds nothing from elsewhere."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfx.types import standard_artifacts

from components.example_gen import EXAMPLES_KEY, ImageExampleGenExecutor, read_counts
from components.settings import DataSettings

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (40, 6, 7), dtype=np.uint8)


def generate(folder, settings):
    """Runs the executor; the identifiers of each split's images, and the rejects."""
    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    properties = {"settings": settings.model_dump_json()}
    ImageExampleGenExecutor().Do({}, {EXAMPLES_KEY: [examples]}, properties)
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    return {split: ids_of(folder / f"Split-{split}") for split in ("train", "eval", "test")}, rejects


def ids_of(folder):
    paths = sorted(map(str, folder.glob("*")))
    examples = map(tf.train.Example.FromString, tf.data.TFRecordDataset(paths).as_numpy_iterator())
    return [example.features.feature["image_id"].bytes_list.value[0].decode() for example in examples]


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


def test_anomalies_named_as_training_images_are_counted_where_they_are_left_out(tmp_path):
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
    """3 is copied into test as it is, 4 in another format; test also holds a pair of its own."""
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


def test_duplicates_are_kept_out_of_test_and_listed_without_stopping_the_run(tmp_path):
    splits, rejects = generate(tmp_path / "examples", duplicates_source(tmp_path / "data"))
    assert splits["test"] == ["test/c.png", "test/d.png"]
    assert len(splits["train"]) + len(splits["eval"]) == 20
    assert rejects == [
        {"image_id": "test/a.png", "reason": "duplicate of train/03.png"},
        {"image_id": "test/b.bmp", "reason": "duplicate of train/04.png"},
    ]
    counts = read_counts(str(tmp_path / "examples"))
    assert (counts["test"], counts["rejected"], counts["duplicates"]) == (2, 0, 2)


def test_an_example_has_one_byte_form_whatever_the_worker(tmp_path):
    """Features in the order of their names; unsorted, they come out in another order in every process."""
    (tmp_path / "data").mkdir()
    generate(tmp_path / "examples", numpy_source(tmp_path / "data"))
    path = next((tmp_path / "examples/Split-train").glob("*"))
    record = next(iter(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()))
    names = sorted(tf.train.Example.FromString(record).features.feature)
    positions = [record.index(bytes([len(name)]) + name.encode() + b"\x12") for name in names]
    assert positions == sorted(positions)
