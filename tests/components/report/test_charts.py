"""The report's charts and their figures, compared with definitions."""

import numpy as np
from report_samples import sample_of

from components.report.charts import at_threshold, detection_charts, score_charts
from components.report.scored_images import Model, score_all


def test_auroc_is_the_share_of_correctly_ordered_pairs():
    random = np.random.default_rng(5)
    is_anomaly = np.array([0] * 40 + [1] * 25 + [-1] * 10)
    scores = random.normal(is_anomaly, 1.0)
    pairs = scores[40:65, None] > scores[None, :40]
    roc, _ = detection_charts(sample_of(scores, is_anomaly))
    assert roc["title"] == f"ROC curve: AUROC {pairs.mean():.3f}"


def test_there_is_no_roc_curve_without_known_anomalies():
    sample = sample_of([0.1, 0.2, 0.3], [-1, -1, -1])
    assert detection_charts(sample) == []
    assert at_threshold(sample, 0.15) == {"unknown": (2, 3)}


def test_scores_that_are_not_finite_are_alarms_beside_the_histogram():
    sample = sample_of([0.1, 0.2, np.inf, 0.3, np.inf], [0, 0, 0, 1, 1])
    assert at_threshold(sample, 0.15) == {"normal": (2, 3), "anomalous": (2, 2)}
    assert detection_charts(sample) == []
    [chart] = score_charts(sample, 0.15)
    assert chart["note"].endswith("Not shown: 2 images whose score is not finite; they are alarms.")
    assert score_charts(sample_of([np.inf], [0]), 0.15) == []


def test_scores_that_are_not_finite_are_read_as_infinite():
    model = Model(lambda encoded: {"score": np.float32([float(image) for image in encoded])}, at_a_time=2)
    assert score_all(model, [b"1", b"nan", b"-inf", b"2"]).tolist() == [1, np.inf, np.inf, 2]
