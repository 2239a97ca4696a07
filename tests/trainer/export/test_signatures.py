"""The served model never calls an image normal whose score is not a number, and refuses impossible rates."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from images.stored import from_pixels
from schema.calibration_record import CalibrationRecord
from trainer.export.signatures import ServedModel, export_served
from trainer.scoring.scores import FittedScore
from trainer.settings.calibration import CalibrationSettings
from trainer.settings.image import ImageSettings

HELD_OUT = np.linspace(0.01, 0.5, 50, dtype=np.float32)
THRESHOLD = 0.45
SIDE_PX = 4


class Trained(tf.Module):
    """Reconstructs black, so that the error is the mean square of the pixels."""

    def __init__(self):
        super().__init__()
        self.mean_image = tf.Variable(tf.zeros((SIDE_PX, SIDE_PX, 1)))

    def decode_pixels(self, encoded):
        def one(data):
            return tf.ensure_shape(tf.cast(tf.io.decode_png(data, 1), tf.float32) / 255, (SIDE_PX, SIDE_PX, 1))

        return tf.map_fn(one, encoded, fn_output_signature=tf.TensorSpec((SIDE_PX, SIDE_PX, 1), tf.float32))

    def autoencode(self, pixels):
        return {"reconstruction": tf.zeros_like(pixels), "latent": self.encode(pixels)}

    def encode(self, image):
        return tf.reduce_mean(image, axis=[1, 2])

    def decode(self, latent):
        return tf.zeros((1, SIDE_PX, SIDE_PX, 1)) + latent[:, None, None]


@pytest.fixture
def model():
    return ServedModel(
        Trained(),
        latent_dim=1,
        image=ImageSettings(height_px=SIDE_PX, width_px=SIDE_PX),
        score=FittedScore("error", CalibrationSettings(), {}),
        calibration=CalibrationRecord(threshold=THRESHOLD, false_alarm_rate=0.1, images=50, pixel_threshold=0.5),
        held_out_scores=[HELD_OUT],
        test_images=50,
    )


@pytest.fixture
def signatures(model, tmp_path):
    tf.saved_model.save(model, str(tmp_path), signatures=model.signatures())
    return tf.saved_model.load(str(tmp_path)).signatures


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_score_that_is_not_finite_is_an_anomaly(signatures, value):
    pixels = np.zeros((3, SIDE_PX, SIDE_PX, 1), np.float32)
    pixels[1, 2, 2] = value
    pixels[2] = 0.9
    found = signatures["pixels"](image=tf.constant(pixels))
    assert not np.isfinite(found["score"][1])
    assert found["is_anomaly"].numpy().tolist() == [0, 1, 1]
    assert found["p_value"].numpy() == pytest.approx([1.0, 1 / 51, 1 / 51])


def image_of(level):
    return from_pixels(np.full((SIDE_PX, SIDE_PX), level, np.uint8)).encoded


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5.0, np.nan])
def test_a_rate_outside_0_and_1_is_refused(signatures, rate):
    images, rates = tf.constant([image_of(0)] * 2), tf.constant([0.1, rate], tf.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="false_alarm_rate must lie between 0 and 1"):
        signatures["score_at"](image_bytes=images, false_alarm_rate=rates)


def test_each_image_is_judged_at_its_own_rate(signatures):
    """The 51 (1 - rate)-th smallest of the held-out scores 0.01, 0.02, ..., 0.5, or none."""
    images, rates = tf.constant([image_of(180)] * 3), tf.constant([0.5, 0.02, 0.001], tf.float32)
    found = signatures["score_at"](image_bytes=images, false_alarm_rate=rates)
    assert found["threshold"].numpy() == pytest.approx([0.26, 0.5, np.inf])
    assert found["is_anomaly"].numpy().tolist() == [1, 0, 0]  # (180 / 255) ** 2 = 0.498


def test_the_signatures_that_people_wait_for_are_warmed_up(model, tmp_path):
    export_served(model, str(tmp_path), warmup_image=image_of(7))
    [file] = tmp_path.glob("assets.extra/tf_serving_warmup_requests")
    logs = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    requests = [log.predict_log.request for log in logs]
    names = [request.model_spec.signature_name for request in requests]
    assert names == ["serving_default", "locate", "reconstruct"]
    assert {request.inputs["image_bytes"].string_val[0] for request in requests} == {image_of(7)}


@pytest.mark.parametrize("name", ["serving_default", "score_at"])
def test_a_score_without_a_map_costs_no_map(signatures, name):
    """TensorFlow computes only what the outputs need."""
    expected = {"error", "score", "threshold", "p_value", "is_anomaly"}
    assert set(signatures[name].structured_outputs) == expected
    assert set(signatures["locate"].structured_outputs) == expected | {
        "anomaly_map", "anomaly_mask", "is_padded", "smallest_region"
    }  # fmt: skip


def test_the_anomaly_map_is_in_multiples_of_the_pixel_threshold(signatures):
    pixels = np.zeros((1, SIDE_PX, SIDE_PX, 1), np.float32)
    pixels[0, 1, 2], pixels[0, 3, 3] = 0.9, 0.6
    found = signatures["pixels"](image=tf.constant(pixels))
    assert found["anomaly_map"].numpy() == pytest.approx(pixels[..., 0] ** 2 / 0.5)
    assert np.argwhere(found["anomaly_mask"].numpy()).tolist() == [[0, 1, 2]]
    assert (found["is_padded"].numpy().tolist(), found["smallest_region"].numpy().tolist()) == ([0], [0.0])
