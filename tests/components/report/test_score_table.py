"""The report's table of scores, for images whose brightness is known."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from components.report.score_table import score_rows
from components.report.scored_images import Model, Sample
from images.synthetic_defects import KINDS
from schema.calibration_record import CalibrationRecord

RANDOM = np.random.default_rng(6)
LEVELS = RANDOM.integers(0, 200, 50)
IS_ANOMALY = np.repeat([0, 1, -1], [30, 15, 5])
AUROC = {"error": dict.fromkeys(KINDS, 0.6), "patch_max": dict.fromkeys(KINDS, 0.75)}
RECORD = CalibrationRecord(score="patch_max", threshold=1.0, false_alarm_rate=0.1, images=9, auroc_by_score=AUROC)
GATE = {
    "metrics": {"auroc": 0.91},
    "simple_models": {"PCA": {"auroc": 0.8}, "nearest neighbours": {}},
    "synthetic_auroc": {
        name: dict.fromkeys(KINDS, auroc)
        for name, auroc in {"candidate": 0.7, "pca": 0.5, "nearest_neighbours": 0.55, "untrained": 0.4}.items()
    },
}


def all_scores(encoded):
    levels = np.array([float(image) for image in encoded])
    return {"error": levels, "patch_max": -levels}


def sample(is_anomaly):
    return Sample(
        total=50,
        positions=tuple(range(50)),
        labels=("",) * 50,
        is_anomaly=is_anomaly,
        scores=np.zeros(50),
        latents=np.zeros((50, 1)),
    )


@pytest.fixture
def examples(tmp_path):
    (tmp_path / "Split-test").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "Split-test/data")) as writer:
        for level in LEVELS:
            values = {"image": b"%d" % level, "image_id": b"x", "label": b""}
            feature = {name: tf.train.Feature(bytes_list={"value": [value]}) for name, value in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(tmp_path)


def rows_of(examples, is_anomaly, record=RECORD, gate=GATE):
    model = Model(reconstruct=lambda encoded: {}, at_a_time=7, all_scores=all_scores)
    return score_rows(model, examples, sample(is_anomaly), calibration=record, gate=gate)


def test_scores_are_sorted_by_synthetic_defects_and_followed_by_models(examples):
    rows = rows_of(examples, IS_ANOMALY)
    assert [(row.name, round(row.mean, 6), row.chosen) for row in rows] == [
        ("patch_max", 0.75, True),
        ("error", 0.6, False),
        ("this model", 0.7, False),
        ("PCA", 0.5, False),
        ("nearest neighbours", 0.55, False),
    ]
    assert rows[0].by_kind == (0.75,) * len(KINDS)


def test_real_anomalies_are_compared_with_known_normal_images(examples):
    expected = roc_auc_score(IS_ANOMALY[:45], LEVELS[:45])
    real = {row.name: row.real for row in rows_of(examples, IS_ANOMALY)}
    assert real["error"] == pytest.approx(expected)
    assert real["patch_max"] == pytest.approx(1 - expected)
    assert (real["this model"], real["PCA"], real["nearest neighbours"]) == (0.91, 0.8, None)


def test_without_labels_there_is_no_auroc_of_real_anomalies(examples):
    scores = rows_of(examples, np.full(50, -1), gate={"metrics": {}})
    assert [(row.name, row.real) for row in scores] == [("patch_max", None), ("error", None)]


def test_nothing_is_shown_of_a_configured_score_that_was_measured_by_an_older_version(examples):
    record = CalibrationRecord(score="error", threshold=1.0, false_alarm_rate=0.1, images=9)
    assert rows_of(examples, IS_ANOMALY, record, {"metrics": {}}) == []
