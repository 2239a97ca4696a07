"""The Calibrator on a saved model with an error map of its own: the chosen score, the threshold and the signatures."""

import io
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import roc_auc_score
from tfx.types import standard_artifacts

from images.synthetic_defects import KINDS, paint
from schema.artifact_types import Calibration
from trainer.calibrator import CalibratorExecutor
from trainer.scoring.cross_fitting import OF_MAPS
from trainer.settings.calibration import CalibrationSettings

RANDOM = np.random.default_rng(12)
PATTERN = RANDOM.uniform(0.3, 0.6, (16, 16, 1))
UNSEEN = RANDOM.uniform(0.01, 0.02, (30, 4, 4)).astype(np.float32)


class FeatureModel(tf.Module):
    """Reconstructs the pattern; its error map is the mean absolute difference of blocks of 4 x 4 pixels."""

    def __init__(self):
        super().__init__()
        self.mean_image = tf.Variable(PATTERN.astype(np.float32))
        self.unseen_maps = tf.Variable(UNSEEN)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode_pixels(self, encoded):
        def decode(png):
            return tf.cast(tf.ensure_shape(tf.io.decode_png(png, 1), [16, 16, 1]), tf.float32) / 255.0

        return tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec([16, 16, 1]))

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 1])])
    def autoencode(self, pixels):
        difference = tf.abs(pixels - self.mean_image)
        return {
            "reconstruction": tf.zeros_like(pixels) + self.mean_image,
            "latent": tf.reduce_mean(pixels, axis=[1, 2]),
            "feature_error": tf.nn.avg_pool2d(difference, 4, 4, "VALID")[..., 0],
        }

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 1])])
    def encode(self, pixels):
        return tf.reduce_mean(pixels, axis=[1, 2])

    @tf.function(input_signature=[tf.TensorSpec([None, 1])])
    def decode(self, latent):
        return tf.zeros([tf.shape(latent)[0], 16, 16, 1]) + latent[:, :, None, None]


def png(levels):
    buffer = io.BytesIO()
    Image.fromarray(levels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def write_split(folder, images):
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "data")) as writer:
        for image in images:
            value = tf.train.Feature(bytes_list={"value": [png(image)]})
            writer.write(tf.train.Example(features=tf.train.Features(feature={"image": value})).SerializeToString())


def artifact(kind, uri):
    made = kind()
    made.uri = str(uri)
    return made


@pytest.fixture(scope="module")
def images():
    levels = np.round(255 * np.clip(PATTERN + RANDOM.normal(0, 0.02, (90, 16, 16, 1)), 0, 1)).astype(np.uint8)
    return {"train": levels[:30], "eval": levels[30:]}


@pytest.fixture(scope="module")
def calibrate(images, tmp_path_factory):
    """Runs the Calibrator with a score: (the loaded SavedModel, the calibration record)."""
    root = tmp_path_factory.mktemp("calibrator")
    for split, of_split in images.items():
        write_split(root / f"examples/Split-{split}", of_split)
    (root / "examples/counts.json").write_text(json.dumps({split: len(x) for split, x in images.items()}))
    tf.saved_model.save(FeatureModel(), str(root / "trained/Format-Serving"))
    record = {"latent_dim": 1, "image": {"height_px": 16, "width_px": 16, "channels": 1}}
    (root / "trained/Format-Serving/assets.extra").mkdir()
    (root / "trained/Format-Serving/assets.extra/autoencoder.json").write_text(json.dumps(record))
    examples = artifact(standard_artifacts.Examples, root / "examples")
    examples.split_names = json.dumps(["train", "eval"])

    def run(score, folder=None):
        out = root / (folder or score)
        (out / "calibration").mkdir(parents=True)
        CalibratorExecutor().Do(
            {"examples": [examples], "trained_model": [artifact(standard_artifacts.Model, root / "trained")]},
            {
                "model": [artifact(standard_artifacts.Model, out / "model")],
                "calibration": [artifact(Calibration, out / "calibration")],
            },
            {
                "settings": CalibrationSettings(score=score, false_alarm_rate=0.05).model_dump_json(),
                "source_fingerprint": "abc",
            },
        )
        loaded = tf.saved_model.load(str(out / "model/Format-Serving"))
        written = json.loads((out / "calibration/calibration.json").read_text())
        beside = json.loads((out / "model/Format-Serving/assets.extra/autoencoder.json").read_text())
        assert beside["calibration"] == written
        return loaded, written

    return run


@pytest.fixture(scope="module")
def automatic(calibrate):
    return calibrate("auto")


def blocks(pixels):
    """The model's error map with NumPy: [N, 4, 4]."""
    return np.abs(pixels - PATTERN).reshape(len(pixels), 4, 4, 4, 4).mean(axis=(2, 4))


def test_the_table_has_numpys_auroc_for_every_score_and_kind(automatic, images):
    _, record = automatic
    assert set(record["auroc_by_score"]) == set(OF_MAPS)  # the model has an error map of its own
    assert all(set(of_kind) == set(KINDS) for of_kind in record["auroc_by_score"].values())
    pixels = (images["eval"] / 255.0).astype(np.float32)
    labels = np.repeat([0, 1], len(pixels))
    usual = UNSEEN.mean(axis=0) + UNSEEN.mean()
    scores = {"error": lambda maps: maps.mean(axis=(1, 2)), "weighted_error": lambda m: (m / usual).mean(axis=(1, 2))}
    for name, score in scores.items():
        for kind in KINDS:
            both = [score(blocks(pixels)), score(blocks(paint(pixels, kind, seed=20)))]
            expected = roc_auc_score(labels, np.concatenate(both))
            assert record["auroc_by_score"][name][kind] == pytest.approx(expected, abs=0.01)


def test_the_chosen_score_is_at_most_a_little_worse_than_the_best(automatic):
    _, record = automatic
    means = {name: np.mean(list(of_kind.values())) for name, of_kind in record["auroc_by_score"].items()}
    assert record["score"] in means
    assert means[record["score"]] > max(means.values()) - 0.05
    assert means[record["score"]] > 0.6


def test_the_threshold_is_the_conformal_quantile_of_the_chosen_score(automatic, images):
    model, record = automatic
    encoded = tf.constant([png(image) for image in images["eval"]])
    scores = model.signatures["serving_default"](image_bytes=encoded)["score"].numpy()
    rank = math.ceil((len(scores) + 1) * 0.95)
    assert record["threshold"] == pytest.approx(np.sort(scores)[rank - 1], rel=1e-5)
    every = model.signatures["all_scores"](image_bytes=encoded)
    assert set(every) == set(OF_MAPS)
    assert every[record["score"]].numpy() == pytest.approx(scores, rel=1e-4)


def test_the_same_images_and_model_give_the_same_record(automatic, calibrate):
    _, record = automatic
    _, again = calibrate("auto", folder="again")
    assert again == record


def test_maps_have_the_image_s_size_and_the_error_stays_that_of_the_reconstruction(calibrate, images):
    model, record = calibrate("patch_max")
    assert (record["score"], record["auroc_by_score"]) == ("patch_max", {})
    assert "all_scores" not in model.signatures
    encoded = tf.constant([png(image) for image in images["eval"]])
    outputs = {name: x.numpy() for name, x in model.signatures["reconstruct"](image_bytes=encoded).items()}
    pixels = images["eval"] / 255.0
    assert outputs["error"] == pytest.approx(((pixels - PATTERN) ** 2).mean(axis=(1, 2, 3)), rel=1e-3)
    enlarged = tf.image.resize(blocks(pixels)[..., None], (16, 16))[..., 0]
    assert outputs["error_map"] == pytest.approx(enlarged.numpy(), abs=1e-5)
    # A patch of 3 pixels is one position of the map.
    assert outputs["score"] == pytest.approx(blocks(pixels).max(axis=(1, 2)), rel=1e-4)
