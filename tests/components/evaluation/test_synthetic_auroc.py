"""Synthetic defects through the `examples` signature of a saved model whose score NumPy can compute."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from components.evaluation.synthetic_auroc import (
    count_known,
    most_images,
    normal_records,
    painted,
    synthetic_aurocs,
)
from images.synthetic_defects import KINDS, paint
from runtime.loaded_models import loaded

RANDOM = np.random.default_rng(8)
IMAGES = RANDOM.integers(60, 190, (40, 12, 16, 1), dtype=np.uint8)


class Brightest(tf.Module):
    """The score is the largest level of the image, times a factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def examples(self, examples):
        parsed = tf.io.parse_example(examples, {"image": tf.io.FixedLenFeature([], tf.string)})
        spec = tf.TensorSpec([12, 16, 1], tf.uint8)
        images = tf.map_fn(lambda png: tf.io.decode_png(png, 1), parsed["image"], fn_output_signature=spec)
        score = self.factor * tf.reduce_max(tf.cast(images, tf.float32), axis=[1, 2, 3])
        return {"score": score, "error_levels": images[..., 0], "is_anomaly": tf.zeros_like(score, tf.int64)}


def saved(folder, factor=1.0):
    model = Brightest(factor)
    tf.saved_model.save(model, str(folder), signatures={"examples": model.examples})
    return loaded(str(folder)).signatures["examples"]


def record(number, is_anomaly):
    known = {} if is_anomaly is None else {"is_anomaly": tf.train.Feature(int64_list={"value": [is_anomaly]})}
    feature = {"image": tf.train.Feature(bytes_list={"value": [b"%d" % number]}), **known}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def numbers(records):
    return [int(tf.train.Example.FromString(r).features.feature["image"].bytes_list.value[0]) for r in records]


@pytest.fixture
def split(tmp_path):
    """400 images in two files: every fourth is an anomaly, of the others every third is not known to be normal."""
    for part in range(2):
        with tf.io.TFRecordWriter(str(tmp_path / f"data-{part}")) as writer:
            for number in range(200 * part, 200 * part + 200):
                writer.write(record(number, 1 if number % 4 == 0 else None if number % 3 == 0 else 0))
    return str(tmp_path)


def test_images_are_counted_by_what_is_known_of_them(split):
    unknown = sum(1 for number in range(400) if number % 4 and number % 3 == 0)
    assert count_known(split) == {0: 300 - unknown, 1: 100, -1: unknown}


def test_the_normal_images_are_spread_over_the_split(split):
    chosen = numbers(normal_records(split, 300, at_most=128))
    assert chosen == [number for number in range(400) if number % 4][::3]
    assert len(chosen) <= 128


@pytest.mark.parametrize(
    ("size", "most"), [((224, 224), 128), ((460, 1130), 64), ((1000, 1000), 33), ((8000, 8000), 20)]
)
def test_fewer_images_are_measured_if_they_are_large(size, most):
    assert most_images(*size) == most
    assert most_images(*size, at_most=40) == min(most, 40)


def test_the_auroc_of_each_kind_is_scikit_learns(tmp_path):
    found = synthetic_aurocs({"model": saved(tmp_path)}, painted(IMAGES))["model"]
    normal = IMAGES.max(axis=(1, 2, 3))
    assert set(found) == set(KINDS)
    for kind in KINDS:
        defective = paint(IMAGES, kind, seed=21).max(axis=(1, 2, 3))
        expected = roc_auc_score(np.repeat([0, 1], 40), np.concatenate([normal, defective]))
        assert found[kind] == pytest.approx(expected)


def test_a_model_without_finite_scores_has_no_value(tmp_path):
    assert synthetic_aurocs({"model": saved(tmp_path, np.nan)}, painted(IMAGES)) == {"model": {}}
