"""Each metric, compared with NumPy's, SciPy's or scikit-learn's value on the same images."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.decomposition import PCA
from sklearn.metrics import mean_squared_error, precision_recall_curve, r2_score

from components.evaluation.accumulators import SliceImages
from components.evaluation.bounds import bounds_of
from components.evaluation.metrics import METRICS
from components.evaluation.tfma_metrics import ReconstructionMetric
from components.settings import GateSettings, MetricName
from images.harmless_changes import STEADINESS
from schema.signatures import NOISE_ERRORS

RANDOM = np.random.default_rng(1)
IMAGES = RANDOM.random((50, 12))
RECONSTRUCTIONS = np.clip(IMAGES + RANDOM.normal(0, 0.1, IMAGES.shape), 0, 1)
MEAN = IMAGES.mean(axis=0)
ERRORS = np.array([mean_squared_error(i, r) for i, r in zip(IMAGES, RECONSTRUCTIONS, strict=True)])
SSIM, KL = RANDOM.random((2, 50))
LATENTS = RANDOM.normal(0, 1, (50, 5)) * [3, 2, 1, 1e-3, 0] + 4
PROBED = np.where(np.arange(50) < 20, RANDOM.random(50), np.nan)
THRESHOLD = np.quantile(ERRORS, 0.9)
OUTPUTS = [
    {
        "error": ERRORS[n],
        "ssim": SSIM[n],
        "deviation": ((IMAGES[n] - MEAN) ** 2).mean(),
        "score": ERRORS[n],
        "threshold": THRESHOLD,
        "shuffled_error": PROBED[n],
        "pixel_variance": 3 * PROBED[n] ** 2,
        **{name: (1 + level) * PROBED[n] for level, name in enumerate(NOISE_ERRORS)},
        "kl": KL[n],
        "latent": LATENTS[n],
        "is_anomaly": -1,
    }
    for n in range(50)
]
EXPECTED = {
    "mean_error": mean_squared_error(IMAGES, RECONSTRUCTIONS),
    "median_error": np.median(ERRORS),
    "p95_error": np.percentile(ERRORS, 95),
    "p99_error": np.percentile(ERRORS, 99),
    "max_error": max(ERRORS),
    "rmse": mean_squared_error(IMAGES, RECONSTRUCTIONS) ** 0.5,
    "psnr": np.mean([10 * np.log10(1 / e) for e in ERRORS]),
    "ssim": SSIM.mean(),
    "explained_variance": r2_score(IMAGES, RECONSTRUCTIONS, multioutput="variance_weighted"),
    "example_count": 50,
    "false_alarm_rate": 5 / 50,
    "noise_ratio": PROBED[:20].mean() / ERRORS[:20].mean(),
    "noise_copied": 1 - PROBED[:20].mean() / np.mean(3 * PROBED[:20] ** 2),
    "error_at_noise_5": PROBED[:20].mean(),
    "error_at_noise_10": 2 * PROBED[:20].mean(),
    "error_at_noise_20": 3 * PROBED[:20].mean(),
    "error_at_noise_40": 4 * PROBED[:20].mean(),
    "dead_units": 2 / 5,
    "effective_dimension": 1 / np.sum(PCA().fit(LATENTS).explained_variance_ratio_ ** 2),
    "kl": KL.mean(),
}
DETECTION = {"auroc", "aupr", "f1", "recall", "recall_at_1pct", "recall_at_5pct", "pixel_auroc", "region_overlap"}


class Element:
    """What TFMA passes to a metric: one image's predictions and features."""

    def __init__(self, outputs, label="a"):
        self.predictions = outputs
        self.features = {"label": np.array([label.encode()])}


def computed(name, elements):
    """The metric's values from its own computations, accumulated in three parts and merged."""
    collect, derive = ReconstructionMetric(name).computations(model_names=[""])
    combiner = collect.combiner
    parts = []
    for part in (elements[::3], elements[1::3], elements[2::3]):
        accumulator = combiner.create_accumulator()
        for element in part:
            accumulator = combiner.add_input(accumulator, element)
        parts.append(accumulator)
    values = derive.result(combiner.extract_output(combiner.merge_accumulators(parts)))
    return {key.name: value for key, value in values.items()}


APART = {"synthetic_auroc", *(f"alarms_at_{change}" for change in STEADINESS)}
"""What ModelAnalysis measures apart from the others."""


def detected(name, normal, anomalous):
    """The metric's values for normal scores and anomalous scores by label."""
    fields = {"error": 0.0, "threshold": 5.0}
    elements = [Element({**fields, "score": score, "is_anomaly": 0}, "good") for score in normal]
    for label, scores in anomalous.items():
        elements += [Element({**fields, "score": score, "is_anomaly": 1}, label) for score in scores]
    return computed(name, elements)


def test_the_configuration_offers_exactly_these_metrics():
    assert set(MetricName.__args__) == set(METRICS) == set(EXPECTED) | DETECTION | APART


@pytest.mark.parametrize("name", EXPECTED)
def test_a_metric_has_its_textbook_value_in_any_order_of_images(name):
    elements = [Element(outputs) for outputs in OUTPUTS]
    assert computed(name, elements) == {name: pytest.approx(EXPECTED[name])}
    assert computed(name, elements[::-1]) == {name: pytest.approx(EXPECTED[name])}


def test_anomalies_do_not_change_the_metrics_of_normal_images():
    anomalous = [Element({**OUTPUTS[0], "error": 0.9, "is_anomaly": 1}, "b")] * 7
    normal = [Element({**outputs, "is_anomaly": 0}) for outputs in OUTPUTS]
    assert computed("mean_error", normal + anomalous)["mean_error"] == pytest.approx(EXPECTED["mean_error"])
    assert computed("mean_error", anomalous)["mean_error"] == pytest.approx(0.9)
    assert np.isnan(computed("false_alarm_rate", anomalous)["false_alarm_rate"])


def test_every_metric_is_nan_without_images():
    assert all(np.isnan(computed(name, [])[name]) for name in METRICS)


SCORES = {"normal": RANDOM.integers(0, 9, 80), "b": RANDOM.integers(2, 12, 40), "c": RANDOM.integers(4, 15, 9)}
BOTH = np.concatenate([SCORES["b"], SCORES["c"]])


@pytest.mark.parametrize(("label", "anomalous"), [("", BOTH), ("@b", SCORES["b"]), ("@c", SCORES["c"])])
def test_detection_compares_all_normal_images_with_a_labels_anomalies(label, anomalous):
    normal, by_label = SCORES["normal"], {"b": SCORES["b"], "c": SCORES["c"]}
    is_anomaly = np.repeat([0, 1], [len(normal), len(anomalous)])
    precision, recall, _ = precision_recall_curve(is_anomaly, np.concatenate([normal, anomalous]))
    hits, alarms = (anomalous > 5).sum(), (normal > 5).sum()
    u = mannwhitneyu(anomalous, normal).statistic
    expected = {
        "auroc": u / (len(normal) * len(anomalous)),
        "aupr": -np.sum(np.diff(recall) * precision[:-1]),
        "f1": 2 * hits / (hits + alarms + len(anomalous)),
        "recall": hits / len(anomalous),
        "recall_at_1pct": (anomalous > max(normal)).mean(),
        "recall_at_5pct": (anomalous > np.sort(normal)[-1 - int(0.05 * 80)]).mean(),
    }
    for name, value in expected.items():
        assert detected(name, normal, by_label)[f"{name}{label}"] == pytest.approx(value), name


def test_detection_metrics_are_nan_without_known_normal_images():
    unknown = [Element({**outputs, "score": 1.0}) for outputs in OUTPUTS]
    anomalous = [Element({**OUTPUTS[0], "is_anomaly": 1})] * 3
    assert np.isnan(computed("auroc", unknown + anomalous)["auroc"])


def test_recall_uses_every_threshold_that_the_rate_allows():
    """With equal scores, each threshold flags as many anomalies as normal images."""
    scores = np.arange(100)
    assert detected("recall_at_5pct", scores, {"b": scores})["recall_at_5pct"] == pytest.approx(0.05)
    assert detected("recall_at_1pct", scores, {"b": scores})["recall_at_1pct"] == pytest.approx(0.01)


def test_f1_is_zero_if_nothing_is_found():
    assert detected("f1", [1, 2], {"b": [3, 4]})["f1"] == 0.0


def test_a_score_equal_to_the_threshold_is_no_alarm():
    elements = [Element({**OUTPUTS[0], "score": score, "threshold": 5.0}) for score in (1.0, 5.0, 6.0)]
    assert computed("false_alarm_rate", elements)["false_alarm_rate"] == pytest.approx(1 / 3)


def test_a_score_that_is_not_finite_is_an_alarm_as_it_is_in_the_model():
    scores = (1.0, float("nan"), float("-inf"), 6.0)
    elements = [Element({**OUTPUTS[0], "score": score, "threshold": 5.0}) for score in scores]
    assert computed("false_alarm_rate", elements)["false_alarm_rate"] == pytest.approx(3 / 4)


def test_a_unit_is_dead_below_a_ten_thousandth_of_the_largest_variance():
    """Standard deviations: 100, 1 (exactly at the limit), 0.5 and 0."""
    latents = np.array([[100, 1, 0.5, 0], [-100, -1, -0.5, 0]])
    assert computed("dead_units", [Element({**OUTPUTS[0], "latent": row}) for row in latents])["dead_units"] == 0.5


def test_the_effective_dimension_does_not_depend_on_scale():
    elements = [Element({**outputs, "latent": 1e-5 * outputs["latent"]}) for outputs in OUTPUTS]
    dimension = computed("effective_dimension", elements)["effective_dimension"]
    assert dimension == pytest.approx(EXPECTED["effective_dimension"], rel=1e-3)


def test_the_error_of_an_older_model_without_a_score_is_still_compared():
    old = [Element({"error": 0.5, "ssim": 0.5, "deviation": 1.0, "is_anomaly": 0})] * 3
    assert computed("mean_error", old)["mean_error"] == 0.5
    assert np.isnan(computed("false_alarm_rate", old)["false_alarm_rate"])
    found = [Element({"error": 0.5, "ssim": 0.5, "deviation": 1.0, "is_anomaly": 1})] * 3
    assert np.isnan(computed("auroc", old + found)["auroc"])


@pytest.mark.parametrize(("shuffled_error", "accepted"), [(1e-5, False), (0.05, False), (0.099, True), (0.15, True)])
def test_the_default_bound_refuses_a_model_that_copies_its_input(shuffled_error, accepted):
    images = SliceImages()
    for outputs in OUTPUTS:
        images.group("", 0).add({**outputs, "shuffled_error": shuffled_error, "pixel_variance": 0.1})
    [bound] = [b for b in bounds_of(GateSettings(), pca_error=1.0, knows_anomalies=False) if b.origin == "identity"]
    assert (METRICS[bound.metric].value(images) <= bound.max) == accepted
