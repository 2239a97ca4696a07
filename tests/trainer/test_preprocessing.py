"""The Transform graph: three images in, three expected arrays out, for each normalisation."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from images.stored import from_pixels
from schema.features import NORMALISED, OFFSET, SCALE
from trainer.preprocessing import decode_images, preprocessing_fn
from trainer.settings.image import ImageSettings

PIXELS = np.array([[[0, 51], [102, 153]] * 2, [[10, 20], [30, 40]] * 2, [[255, 0], [0, 255]] * 2], np.uint8)
IMAGES = np.repeat(PIXELS, 2, axis=2)[..., np.newaxis]  # [3, 4, 4, 1]
UNIT = IMAGES / 255.0


def transformed(normalisation, tmp_path):
    settings = ImageSettings(height_px=4, width_px=4, normalisation=normalisation)
    spec = {"image": tf.io.FixedLenFeature([], tf.string)}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    rows = [{"image": from_pixels(image).encoded} for image in IMAGES]
    with tft_beam.Context(temp_dir=str(tmp_path)):
        (data, _), transform_fn = (rows, metadata) | tft_beam.AnalyzeAndTransformDataset(
            lambda inputs: preprocessing_fn(inputs, {"image": settings.model_dump()})
        )
        transform_fn | tft_beam.WriteTransformFn(str(tmp_path / "fn"))
    outputs = {name: np.stack([row[name] for row in data]) for name in (NORMALISED, OFFSET, SCALE)}
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


def test_images_are_converted_between_grey_and_colour():
    assert decode(np.full((4, 4), 51), height_px=4, width_px=4, channels=3) == pytest.approx(np.full((4, 4, 3), 0.2))
    red = np.zeros((4, 4, 3))
    red[..., 0] = 255
    assert decode(red, height_px=4, width_px=4, channels=1) == pytest.approx(np.full((4, 4, 1), 0.299), abs=0.01)
