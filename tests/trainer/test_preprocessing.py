"""The Transform graph: three images in, three expected arrays out, for each normalisation."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from images.decoding import Shown, encoded_pixels
from images.regions import Placement
from images.stored import from_pixels
from schema.features import LEVELS, NORMALISED, OFFSET, SCALE
from trainer.data.decoding import decode_images
from trainer.data.resizing import resized
from trainer.preprocessing import preprocessing_fn
from trainer.settings.image import ImageSettings

PIXELS = np.array([[[0, 51], [102, 153]] * 2, [[10, 20], [30, 40]] * 2, [[255, 0], [0, 255]] * 2], np.uint8)
IMAGES = np.repeat(PIXELS, 2, axis=2)[..., np.newaxis]  # [3, 4, 4, 1]
UNIT = IMAGES / 255.0


def transformed(normalisation, tmp_path):
    settings = ImageSettings(height_px=4, width_px=4, normalisation=normalisation)
    return transformed_by(settings, [from_pixels(image).encoded for image in IMAGES], tmp_path)


def transformed_by(settings, files, tmp_path):
    """(outputs of Transform, the saved graph, its inputs)."""
    spec = {"image": tf.io.FixedLenFeature([], tf.string)}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    rows = [{"image": encoded} for encoded in files]
    with tft_beam.Context(temp_dir=str(tmp_path)):
        (data, _), transform_fn = (rows, metadata) | tft_beam.AnalyzeAndTransformDataset(
            lambda inputs: preprocessing_fn(inputs, {"image": settings.model_dump()})
        )
        transform_fn | tft_beam.WriteTransformFn(str(tmp_path / "fn"))
    outputs = {name: np.stack([row[name] for row in data]) for name in (NORMALISED, OFFSET, SCALE, LEVELS)}
    return outputs, tft.TFTransformOutput(str(tmp_path / "fn")), rows


@pytest.mark.parametrize(
    ("normalisation", "offset", "scale"),
    [("unit", 0.0, 1.0), ("zscore", UNIT.mean(), UNIT.std()), ("minmax", UNIT.min(), UNIT.max() - UNIT.min())],
)
def test_normalisation_matches_numpy_and_can_be_inverted(normalisation, offset, scale, tmp_path):
    outputs, saved, rows = transformed(normalisation, tmp_path)
    assert outputs[OFFSET] == pytest.approx(np.full((3, 1), offset), abs=1e-6)
    assert outputs[SCALE] == pytest.approx(np.full((3, 1), scale), rel=1e-5)
    assert outputs[NORMALISED] == pytest.approx((UNIT - offset) / scale, abs=1e-5)
    restored = outputs[NORMALISED] * outputs[SCALE][:, None, None] + outputs[OFFSET][:, None, None]
    assert restored == pytest.approx(UNIT, abs=1e-6)
    again = saved.transform_features_layer()({"image": tf.constant([row["image"] for row in rows])})
    assert np.array_equal(again[NORMALISED].numpy(), outputs[NORMALISED])


def test_mean_and_deviation_do_not_depend_on_the_batches(tmp_path):
    pixels = np.random.default_rng(5).integers(0, 256, (23, 31, 17, 3), np.uint8)
    files = [from_pixels(image).encoded for image in pixels]
    settings = ImageSettings(height_px=31, width_px=17, channels=3, normalisation="zscore")
    found = []
    for size in (1, 4, 23):
        with tft_beam.Context(desired_batch_size=size):
            outputs, _, _ = transformed_by(settings, files, tmp_path / str(size))
        found.append(np.stack([outputs[OFFSET][0], outputs[SCALE][0]]))
    unit = pixels.reshape(-1, 3) / 255.0
    assert found[0] == pytest.approx(np.stack([unit.mean(axis=0), unit.std(axis=0)]), rel=1e-6)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def decode(pixels, **settings):
    encoded = from_pixels(np.asarray(pixels, np.uint8)).encoded
    return decode_images(tf.constant([encoded]), ImageSettings(**settings)).numpy()[0]


def test_an_image_of_the_right_size_is_not_resampled():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5))
    assert np.array_equal(decode(pixels, height_px=6, width_px=5)[:, :, 0], pixels.astype(np.float32) / 255)


def test_halving_averages_blocks_of_flat_colour():
    quarters = np.kron([[0, 255], [255, 0]], np.ones((8, 8)))
    small = decode(quarters, height_px=4, width_px=4)[:, :, 0]
    assert small[0, 0] == pytest.approx(0, abs=1e-6)
    assert small[0, 3] == pytest.approx(1, abs=1e-6)
    assert small.mean() == pytest.approx(0.5, abs=1e-6)


def test_padding_keeps_the_aspect_ratio():
    padded = decode(np.full((4, 8), 255), height_px=8, width_px=8, fit="pad")[:, :, 0]
    assert padded[:2].max() == 0
    assert padded[2:6].min() == 1


@pytest.mark.parametrize("size", [(7, 40), (40, 7), (29, 90), (161, 32), (64, 64)])
def test_padding_is_that_of_tensorflow(size):
    values = np.random.default_rng(0).random((*size, 3), np.float32)
    image = ImageSettings(height_px=33, width_px=46, fit="pad")
    expected = tf.image.resize_with_pad(values, 33, 46, antialias=True)
    assert np.array_equal(resized(values, image, antialias=True), expected)


@pytest.mark.parametrize("size", [(2, 1000), (1000, 2)])
def test_an_image_of_extreme_aspect_keeps_a_line(size):
    padded = decode(np.full(size, 255), height_px=16, width_px=16, fit="pad")[:, :, 0]
    expected = np.zeros((16, 16))
    Placement.on_map(size, (16, 16), is_padded=True).crop(expected)[:] = 1
    assert padded == pytest.approx(expected, abs=1e-5)
    assert expected.sum() == 16


def test_images_are_converted_between_grey_and_colour():
    assert decode(np.full((4, 4), 51), height_px=4, width_px=4, channels=3) == pytest.approx(np.full((4, 4, 3), 0.2))
    red = np.zeros((4, 4, 3))
    red[..., 0] = 255
    assert decode(red, height_px=4, width_px=4, channels=1) == pytest.approx(np.full((4, 4, 1), 0.299), abs=0.01)


def test_percentiles_of_the_training_images_become_0_and_1(tmp_path):
    images = np.random.default_rng(0).integers(300, 4000, (30, 20, 20, 1)).astype(np.uint16)
    images[0, 0, 0], images[1, 0, 0] = 65535, 0  # hot and dead pixels
    settings = ImageSettings(height_px=20, width_px=20, depth=16, range={"percentiles": [0.1, 99.9]})
    outputs, saved, rows = transformed_by(settings, [from_pixels(image).encoded for image in images], tmp_path)
    low, high = np.percentile(images, [0.1, 99.9])
    assert outputs[LEVELS] == pytest.approx(np.tile([low, high], (30, 1)), abs=4)
    low, high = outputs[LEVELS][0].astype(np.float64)
    expected = np.clip((images - low) / (high - low), 0, 1)
    assert outputs[NORMALISED] == pytest.approx(expected, abs=1e-6)
    again = saved.transform_features_layer()({"image": tf.constant([row["image"] for row in rows])})
    assert np.array_equal(again[NORMALISED].numpy(), outputs[NORMALISED])


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_values_of_32_bits_have_percentiles_too(tmp_path, fit):
    values = np.random.default_rng(0).normal(-500.0, 100.0, (30, 8, 16, 1)).astype(np.float32)
    settings = ImageSettings(height_px=16, width_px=16, depth=16, fit=fit, range={"percentiles": [0, 100]})
    outputs, _, _ = transformed_by(settings, [encoded_pixels(Shown(one)) for one in values], tmp_path)
    assert outputs[LEVELS] == pytest.approx(np.tile([values.min(), values.max()], (30, 1)))
    if fit == "pad":  # with black, although no value is 0
        assert outputs[NORMALISED][:, :4].max() == 0
        assert outputs[NORMALISED][:, 4:12].max() == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_depth_8_decodes_as_before(channels):
    """The pixels of a file of 8 bits, and the upper bytes of one of 16, over 255: to the last bit."""
    for bits in (8, 16):
        pixels = np.random.default_rng(0).integers(0, 2**bits, (6, 5)).astype(f"u{bits // 8}")
        settings = ImageSettings(height_px=6, width_px=5, channels=channels)
        decoded = decode_images(tf.constant([from_pixels(pixels).encoded]), settings).numpy()[0]
        expected = (pixels >> (bits - 8)).astype(np.float32) / np.float32(255)
        assert np.array_equal(decoded, np.repeat(expected[..., None], channels, axis=2))
