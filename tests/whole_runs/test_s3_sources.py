"""A source in an object store gives the images that it gives from a disk."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pyarrow import fs as arrow

from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.registry import plan_source
from pipeline.kubeflow.simulator.launcher import upload

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 7), dtype=np.uint8)


def _folder(folder: Path) -> str:
    for path in ("train/good", "test/good", "test/crack", "ground_truth/crack", ".hidden"):
        (folder / path).mkdir(parents=True)
    for row, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / "train/good" / f"\u732b {row:02d}.png")
    Image.fromarray(PIXELS[0]).save(folder / "test/good/0.bmp")
    Image.fromarray(PIXELS[1]).save(folder / "test/crack/1.png")
    Image.fromarray(PIXELS[1]).save(folder / "ground_truth/crack/1_mask.png")
    Image.fromarray(PIXELS[1]).save(folder / ".hidden/1.png")
    (folder / "test/crack/empty.png").touch()
    return ""


def _csv(folder: Path) -> str:
    Image.fromarray(PIXELS[0]).save(folder / "a.png")
    (folder / "list.csv").write_text("path,label\na.png,cat\ngone.png,dog\n", encoding="utf-8")
    return "/list.csv"


def _npy(folder: Path) -> str:
    np.save(folder / "images.npy", PIXELS)
    return "/images.npy"


def _npz(folder: Path) -> str:
    np.savez_compressed(folder / "images.npz", x_train=PIXELS, y_train=np.arange(40), x_test=PIXELS)
    return "/images.npz"


def _idx(folder: Path) -> str:
    header = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in PIXELS.shape)
    (folder / "train-images-idx3-ubyte").write_bytes(header + PIXELS.tobytes())
    return ""


def _tfrecord(folder: Path) -> str:
    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as writer:
        for pixels in PIXELS:
            example = tf.train.Example()
            example.features.feature["image"].bytes_list.value.append(tf.io.encode_png(pixels[..., None]).numpy())
            writer.write(example.SerializeToString())
    return ""


SOURCES = {"folder": _folder, "csv": _csv, "npy": _npy, "npz": _npz, "idx": _idx, "tfrecord": _tfrecord}


@pytest.mark.parametrize("kind", SOURCES)
def test_images_from_a_bucket_are_those_of_the_disk(kind: str, s3: arrow.S3FileSystem, tmp_path: Path) -> None:
    local = tmp_path / "data"
    local.mkdir()
    path = SOURCES[kind](local)
    upload(s3, local, f"s3://bucket/{kind}")
    source = "numpy" if kind in ("npy", "npz") else kind
    here, there = (
        plan_source(DataSettings.model_validate({"source": source, "path": f"{root}{path}", "images_per_shard": 9}))
        for root in (local, f"s3://bucket/{kind}")
    )
    expected = [repr(image) for shard in here.shards for image in shard.read()]
    found = [repr(image) for shard in there.shards for image in shard.read()]
    assert [image.replace("no such object", "No such file or directory") for image in found] == expected
    assert there.image_count == here.image_count > 0


def test_what_is_not_in_the_bucket_is_named(s3: arrow.S3FileSystem) -> None:
    with pytest.raises(DataError, match="s3://bucket/nowhere: no such folder"):
        plan_source(DataSettings(source="folder", path="s3://bucket/nowhere"))
    with pytest.raises(DataError, match="http://example.org/a.npy: cannot be read: only s3://, minio:// and gs://"):
        plan_source(DataSettings(source="numpy", path="http://example.org/a.npy"))


def test_the_fingerprint_changes_with_the_objects(s3: arrow.S3FileSystem) -> None:
    settings = DataSettings(source="folder", path="s3://bucket/changing")
    image = tf.io.encode_png(PIXELS[0][..., None]).numpy()
    fingerprints = set()
    for count in (1, 2, 20, 21):  # a few are asked for one by one, many are listed
        for row in range(count):
            with s3.open_output_stream(f"bucket/changing/{row}.png") as stream:
                stream.write(image)
        fingerprints.add(plan_source(settings).fingerprint)
    assert len(fingerprints) == 4
