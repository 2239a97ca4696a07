"""Which test images the controls and the simple models are measured on, through a saved model that only counts."""

import pytest
import tensorflow as tf

from components.evaluation import control_metrics
from components.evaluation.control_metrics import control_metrics_of, floor_metrics_of
from runtime.loaded_models import loaded

SMALL, LARGE = (8, 8), (1000, 1000)
"""Of large ones, 33 are measured."""


class Numbered(tf.Module):
    """The error and the score of an image are its number; only images with an identifier are probed with noise."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def examples(self, examples):
        spec = {"image": ([], tf.string, ""), "image_id": ([], tf.string, ""), "is_anomaly": ([], tf.int64, -1)}
        parsed = tf.io.parse_example(examples, {name: tf.io.FixedLenFeature(*of) for name, of in spec.items()})
        number = tf.strings.to_number(parsed["image"])
        probed = tf.where(parsed["image_id"] == "", float("nan"), 1.0)
        noise = {"shuffled_error": probed, "pixel_variance": probed}
        pixels = tf.zeros([tf.size(number), *self.size], tf.uint16)
        return {
            "error": number,
            "score": number,
            "is_anomaly": parsed["is_anomaly"],
            "error_levels": pixels,
            "mask_pixels": tf.cast(pixels, tf.int8),
            **noise,
        }


@pytest.fixture(scope="module")
def signature(tmp_path_factory):
    """Size of the error maps -> signature."""

    def saved(size):
        model, folder = Numbered(size), str(tmp_path_factory.mktemp("model"))
        tf.saved_model.save(model, folder, signatures={"examples": model.examples})
        return loaded(folder).signatures["examples"]

    return {size: saved(size) for size in (SMALL, LARGE)}


def written(folder, kinds):
    """A split with an image of each of the kinds: 1 anomalous, 0 normal, None unknown."""
    with tf.io.TFRecordWriter(str(folder / "data")) as writer:
        for number, is_anomaly in enumerate(kinds):
            feature = {
                name: tf.train.Feature(bytes_list={"value": [text]})
                for name, text in {
                    "image": b"%d" % number,
                    "image_id": b"image-%d" % number,
                    "label": b"bad" if is_anomaly == 1 else b"good",
                }.items()
            }
            if is_anomaly is not None:
                feature["is_anomaly"] = tf.train.Feature(int64_list={"value": [is_anomaly]})
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(folder)


def counts(found):
    """(normal, anomalous) images that were measured."""
    return tuple(int(found.get(label, {}).get("example_count", 0)) for label in ("good", "bad"))


@pytest.mark.parametrize(
    ("anomalous", "others", "expected"),
    [
        (10, 20, (20, 10)),
        (2, 3000, (31, 2)),
        (3000, 2, (2, 31)),
        (90, 90, (15, 15)),
        (0, 99, (33, 0)),
        (99, 0, (0, 33)),
    ],
    ids=str,
)
def test_controls_are_measured_on_few_large_images_of_both_kinds(tmp_path, signature, anomalous, others, expected):
    split = written(tmp_path, [0] * others + [1] * anomalous)
    found = control_metrics_of(signature[LARGE], split)
    assert counts(found) == expected
    assert ("auroc" in found[None]) == all(expected)
    assert found[None]["noise_copied"] == pytest.approx(0.0)


def test_they_are_evenly_spaced_over_the_split(tmp_path, signature):
    found = control_metrics_of(signature[LARGE], written(tmp_path, [None, 1] * 320))
    assert counts(found) == (17, 16)
    assert found["good"]["mean_error"] == 2 * 19 * 8
    assert found["bad"]["mean_error"] == 2 * 20 * 7.5 + 1
    assert "auroc" not in found[None], "no image is known to be normal"


def test_of_small_images_a_thousand_are_measured(tmp_path, signature):
    assert counts(control_metrics_of(signature[SMALL], written(tmp_path, [0] * 1990 + [1] * 10))) == (664, 10)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=str)
def test_simple_models_are_measured_on_what_the_candidate_is_without_noise(tmp_path, signature, size):
    kinds = [1 if number % 40 == 7 else 0 for number in range(120)]
    found = floor_metrics_of(signature[size], written(tmp_path, kinds))
    assert counts(found) == (117, 3)
    assert found[None]["mean_error"] == sum(x for x in range(120) if x % 40 != 7) / 117
    assert "noise_copied" not in found[None]


def test_simple_models_see_the_rare_anomalies_of_a_larger_split(tmp_path, signature):
    count = control_metrics.FLOOR_IMAGES + 2001
    found = floor_metrics_of(signature[SMALL], written(tmp_path, [int(x in (1, 4003)) for x in range(count)]))
    assert counts(found) == (-(-(count - 2) // 2), 2)
    assert "auroc" in found[None]
