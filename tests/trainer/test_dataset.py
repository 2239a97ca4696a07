"""Images are decoded once and come out the same from memory and from disk, in a seeded order."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from components.image_files import from_pixels
from trainer.dataset import count_records, load_images, pixel_constants
from trainer.preprocessing import preprocessing_fn
from trainer.settings import ImageSettings

COUNT = 300  # more than one batch of the decoder
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 5), dtype=np.uint8)
SETTINGS = ImageSettings(height_px=4, width_px=5, normalisation="minmax")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(pattern of two record files, Transform's output) for PIXELS."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = [{"image": from_pixels(pixels).encoded} for pixels in PIXELS]
    for number, half in enumerate((rows[:120], rows[120:])):
        with tf.io.TFRecordWriter(str(folder / f"records-{number}")) as writer:
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
    return [str(folder / "records-*")], tft.TFTransformOutput(str(folder / "transform"))


@pytest.fixture(params=[100, 0], ids=["memory", "disk"])
def images(request, written, tmp_path):
    patterns, transform = written
    return load_images(patterns, transform, cache_mb=request.param, cache_path=str(tmp_path / "cache"))


def test_records_of_all_files_are_counted(written):
    assert count_records(written[0]) == COUNT


def test_images_keep_their_order_and_undo_to_pixels(written, images):
    constants = pixel_constants(*written)
    seen = np.concatenate(list(images.iterate(batch_size=64)))
    assert seen.shape == (COUNT, 4, 5, 1)
    assert np.asarray(constants.to_pixels(seen))[..., 0] * 255 == pytest.approx(PIXELS.astype(float), abs=1e-3)
    assert np.array_equal(images.sample(7), seen[:7])
    assert images.sample(COUNT + 1).shape[0] == COUNT


def test_normalising_undoes_the_undoing(written, images):
    constants = pixel_constants(*written)
    normalised = images.sample(3)
    assert np.asarray(constants.normalise(constants.to_pixels(normalised))) == pytest.approx(normalised, abs=1e-6)


def test_shuffling_is_seeded_loses_nothing_and_changes_each_epoch(images):
    def epochs(seed):
        batches = images.batches(32, shuffle_seed=seed)
        return [np.concatenate([batch.numpy() for batch in batches]) for _ in range(2)]

    first, second = epochs(1)
    assert np.array_equal(np.sort(first, axis=0), np.sort(images.sample(COUNT), axis=0))
    assert not np.array_equal(first, second)
    again = epochs(1)
    assert np.array_equal(first, again[0])
    assert np.array_equal(second, again[1])
