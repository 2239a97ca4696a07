"""Each metric against NumPy's or scikit-learn's own value on the same images, through TFMA itself."""

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from sklearn.metrics import mean_squared_error, r2_score

from components.metrics import METRICS, ReconstructionMetric
from components.settings import MetricName

RANDOM = np.random.default_rng(1)
IMAGES = RANDOM.random((50, 12))
RECONSTRUCTIONS = np.clip(IMAGES + RANDOM.normal(0, 0.1, IMAGES.shape), 0, 1)
MEAN = IMAGES.mean(axis=0)
ROWS = np.stack(
    [
        ((IMAGES - RECONSTRUCTIONS) ** 2).mean(axis=1),
        RANDOM.random(50),
        ((IMAGES - MEAN) ** 2).mean(axis=1),
    ],
    axis=1,
)
ERRORS = [mean_squared_error(i, r) for i, r in zip(IMAGES, RECONSTRUCTIONS, strict=True)]
EXPECTED = {
    "mean_error": mean_squared_error(IMAGES, RECONSTRUCTIONS),
    "median_error": np.median(ERRORS),
    "p95_error": np.percentile(ERRORS, 95),
    "p99_error": np.percentile(ERRORS, 99),
    "max_error": max(ERRORS),
    "rmse": mean_squared_error(IMAGES, RECONSTRUCTIONS) ** 0.5,
    "psnr": np.mean([10 * np.log10(1 / e) for e in ERRORS]),
    "ssim": ROWS[:, 1].mean(),
    "explained_variance": r2_score(IMAGES, RECONSTRUCTIONS, multioutput="variance_weighted"),
    "example_count": 50,
}


def test_the_configuration_offers_exactly_these_metrics():
    assert set(MetricName.__args__) == set(METRICS) == set(EXPECTED)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_its_textbook_value(name):
    assert METRICS[name](ROWS) == pytest.approx(EXPECTED[name])


class Element:
    """What TFMA hands a metric: one image's predictions."""

    def __init__(self, row, is_anomaly):
        self.predictions = {"error": row[0], "ssim": row[1], "deviation": row[2], "is_anomaly": is_anomaly}


def computed(name, elements):
    """The metric's value by its own computations, in two halves that are merged."""
    collect, derive = ReconstructionMetric(name).computations(model_names=[""])
    combiner = collect.combiner
    halves = []
    for half in (elements[::2], elements[1::2]):
        accumulator = combiner.create_accumulator()
        for element in half:
            accumulator = combiner.add_input(accumulator, element)
        halves.append(accumulator)
    values = combiner.extract_output(combiner.merge_accumulators(halves))
    return derive.result(values)[tfma.metrics.MetricKey(name=name)]


@pytest.mark.parametrize("name", METRICS)
def test_the_order_and_number_of_workers_change_nothing(name):
    assert computed(name, [Element(row, -1) for row in ROWS]) == pytest.approx(EXPECTED[name])


def test_anomalies_do_not_spoil_the_metrics_of_normal_images():
    anomalous = [Element((0.9, 0.0, 0.1), 1)] * 7
    assert computed("mean_error", [Element(row, 0) for row in ROWS] + anomalous) == pytest.approx(
        EXPECTED["mean_error"]
    )
    assert computed("mean_error", anomalous) == pytest.approx(0.9)


def test_no_image_gives_no_number_that_a_bound_could_accept():
    assert np.isnan(computed("mean_error", []))
    assert computed("example_count", []) == 0
