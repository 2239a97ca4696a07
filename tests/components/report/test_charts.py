"""The report's charts and their figures, compared with definitions."""

import numpy as np
from report_samples import sample_of

from components.report.charts import at_threshold, detection_charts


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
