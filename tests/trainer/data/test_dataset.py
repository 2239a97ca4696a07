"""Images are decoded once and are the same from memory and from disk, in a seeded order."""

import json
import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from held_images import hold_images_on_disk
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from images.stored import from_pixels
from trainer.data.dataset import load_images, pixel_constants
from trainer.preprocessing import preprocessing_fn
from trainer.settings.image import ImageSettings

COUNT = 300  # more than one batch of the decoder
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 5), dtype=np.uint8)
SETTINGS = ImageSettings(height_px=4, width_px=5, normalisation="minmax")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(pattern of two record files, Transform's output) for PIXELS."""
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "Split-train").mkdir()
    (folder / "counts.json").write_text(json.dumps({"train": COUNT}))
    rows = [{"image": from_pixels(pixels).encoded} for pixels in PIXELS]
    for number, half in enumerate((rows[:120], rows[120:])):
        with tf.io.TFRecordWriter(str(folder / f"Split-train/records-{number}")) as writer:
            for row in half:
                feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[row["image"]]))
                example = tf.train.Example(features=tf.train.Features(feature={"image": feature}))
                writer.write(example.SerializeToString())
    metadata = dataset_metadata.DatasetMetadata(
        schema_utils.schema_from_feature_spec({"image": tf.io.FixedLenFeature([], tf.string)})
    )
    with tft_beam.Context(temp_dir=str(folder / "tmp")):
        transform_fn = (rows, metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"image": SETTINGS.model_dump()})
        )
        transform_fn | tft_beam.WriteTransformFn(str(folder / "transform"))
    return [str(folder / "Split-train/*")], tft.TFTransformOutput(str(folder / "transform"))


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as nameless:
        yield nameless


@pytest.fixture(params=[100, 0], ids=["memory", "disk"])
def images(request, written, file):
    return load_images(*written, cache_mb=request.param, file=file)


def test_images_keep_their_order_and_undo_to_pixels(written, images):
    constants = pixel_constants(*written)
    seen = np.concatenate(list(images.iterate()))
    assert seen.shape == (COUNT, 4, 5, 1)
    assert np.asarray(constants.to_pixels(seen))[..., 0] * 255 == pytest.approx(PIXELS.astype(float), abs=1e-3)
    assert np.array_equal(images.sample(7), seen[:7])
    assert images.sample(COUNT + 1).shape[0] == COUNT


def test_normalise_inverts_to_pixels(written, images):
    constants = pixel_constants(*written)
    normalised = images.sample(3)
    assert np.asarray(constants.normalise(constants.to_pixels(normalised))) == pytest.approx(normalised, abs=1e-6)


def test_batches_are_in_file_order_and_the_last_is_smaller(images):
    batches = [batch.numpy() for batch in images.batches(128)]
    assert [len(batch) for batch in batches] == [128, 128, 44]
    assert np.array_equal(np.concatenate(batches), images.sample(COUNT))


def stream(images, **kwargs):
    """[(step, images)] of two epochs of 9 steps."""
    batches = images.training_batches(lambda step, images: (step, images), 32, epochs=2, **kwargs)
    return [(int(step), batch.numpy()) for step, batch in batches]


def test_an_epoch_has_no_image_twice_and_the_order_changes(images):
    batches = stream(images, seed=1)
    assert [step for step, _ in batches] == list(range(18))
    first, second = (np.concatenate([batch for _, batch in batches[i : i + 9]]) for i in (0, 9))
    known = {image.tobytes() for image in images.sample(COUNT)}
    for epoch in (first, second):
        seen = {image.tobytes() for image in epoch}
        assert len(seen) == 288
        assert seen <= known
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.concatenate([batch for _, batch in stream(images, seed=2)[:9]]))


@pytest.mark.parametrize("first_step", [1, 9, 13])
def test_the_stream_can_start_at_any_step(images, first_step):
    whole, rest = stream(images, seed=1), stream(images, seed=1, first_step=first_step)
    assert [step for step, _ in rest] == list(range(first_step, 18))
    assert all(np.array_equal(ours, theirs) for (_, ours), (_, theirs) in zip(rest, whole[first_step:], strict=True))


def test_memory_and_disk_give_the_same_batches(written, file):
    sets = [load_images(*written, cache_mb=mb, file=file) for mb in (100, 0)]
    assert [images.images is None for images in sets] == [False, True]
    in_memory, on_disk = (stream(images, seed=1) for images in sets)
    assert all(np.array_equal(ours, theirs) for (_, ours), (_, theirs) in zip(in_memory, on_disk, strict=True))


def test_the_warning_about_images_on_disk_names_the_setting(written, file, caplog):
    load_images(*written, cache_mb=0.01, file=file)
    assert "300 images take 0.02289 MB" in caplog.text
    assert "trainer.cache_mb" in caplog.text
    assert os.fstat(file.fileno()).st_size == COUNT * 4 * 5 * 4


@pytest.mark.slow
def test_a_killed_process_leaves_no_temporary_files(written, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    patterns, transform = written
    spawn = multiprocessing.get_context("spawn")
    loaded = spawn.Event()
    folder = str(Path(transform.transform_savedmodel_dir).parent)
    process = spawn.Process(target=hold_images_on_disk, args=(patterns, folder, loaded))
    process.start()
    try:
        assert loaded.wait(120)
        open_files = Path("/proc", str(process.pid), "fd").iterdir()
        held = [entry.stat().st_size for entry in open_files if str(entry.readlink()).startswith(str(tmp_path))]
    finally:
        process.kill()
        process.join()
    assert held == 2 * [COUNT * 4 * 5 * 4]
    assert list(tmp_path.iterdir()) == []
