"""The gate's bounds and verdicts, compared with those of TFMA's own validator."""

import json
import math

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from sklearn.metrics import roc_auc_score
from tfma_results import evaluated

from components.evaluation.bounds import (
    BASELINE,
    CANDIDATE,
    Bound,
    bounds_of,
    chance,
    detection_floors,
    eval_config,
)
from components.evaluation.gate import judge, read_metrics
from components.evaluation.metrics import METRICS
from components.settings import GateSettings

COUNTED = Bound("example_count", "counted", min=1.0)


def judged(folder, bounds):
    """Our rows; the verdict must match the one that TFMA's own writer recorded."""
    verdict = judge(bounds, read_metrics(folder, CANDIDATE), read_metrics(folder, BASELINE))
    assert verdict.blessed == verdict.validation.validation_ok == tfma.load_validation_result(folder).validation_ok
    return verdict.rows


def verdicts(rows):
    return {(row["metric"], row["label"], row["origin"]): row["reason"] or "passed" for row in rows}


def test_every_gate_setting_becomes_a_bound_of_its_own():
    settings = GateSettings(
        max_pca_ratio=0.5,
        max_noise_copied=0.25,
        min_auroc=0.75,
        max_regression=0.125,
        thresholds=[
            {"metric": "ssim", "min": 0.4, "max": 0.9, "max_regression": 0.2, "label": "b"},
            {"metric": "psnr", "min": 10.0},
            {"metric": "rmse", "max": 0.1},
            {"metric": "f1", "max_regression": 0.3},
        ],
    )
    assert bounds_of(settings, pca_error=0.5, knows_anomalies=True) == [
        COUNTED,
        Bound("mean_error", "PCA floor", None, 0.25, None),
        Bound("noise_copied", "identity", None, 0.25, None),
        Bound("auroc", "detection", 0.75, None, None),
        Bound("mean_error", "baseline", None, 0.125, None),
        Bound("ssim", "configured", 0.4, 0.9, "b"),
        Bound("ssim", "baseline", None, 0.2, "b"),
        Bound("psnr", "configured", 10.0, None, None),
        Bound("rmse", "configured", None, 0.1, None),
        Bound("f1", "baseline", None, 0.3, None),
    ]


def test_a_model_that_detects_must_beat_the_better_simple_model_instead_of_pcas_error():
    """The tolerance is the standard deviation of U / (n m) under the null hypothesis (Mann & Whitney 1947)."""
    simple = {"PCA": {"synthetic_auroc": 0.7, "auroc": 0.9}, "nearest neighbours": {"synthetic_auroc": 0.8}}
    floors = detection_floors(simple, {"synthetic_auroc": (128, 128), "auroc": (40, 30)})
    expected = [("synthetic_auroc", "floor: nearest neighbours", 0.8, 128, 128), ("auroc", "floor: PCA", 0.9, 40, 30)]
    for bound, (metric, origin, value, n, m) in zip(floors, expected, strict=True):
        deviation = np.sqrt(n * m * (n + m + 1) / 12) / (n * m)
        assert (bound.metric, bound.origin) == (metric, origin)
        assert bound.min == pytest.approx(value - deviation)
    settings = GateSettings(purpose="detect", max_regression=0.25)
    assert bounds_of(settings, pca_error=0.5, knows_anomalies=True, floors=floors) == [
        COUNTED,
        Bound("explained_variance", "constant", min=0.01),
        *floors,
        Bound("noise_copied", "identity", max=0.2),
        Bound("auroc", "detection", min=0.5),
        Bound("synthetic_auroc", "baseline", max=0.25),
    ]


@pytest.mark.parametrize(("normal", "anomalous"), [(128, 128), (40, 40), (15, 2), (1, 1)])
def test_a_ranking_that_may_be_chance_is_below_the_floor_however_bad_the_simple_models_are(normal, anomalous):
    simple = {"PCA": {"auroc": 0.53}, "nearest neighbours": {"auroc": 0.4}}
    [floor] = detection_floors(simple, {"auroc": (normal, anomalous)})
    deviation = np.sqrt((normal + anomalous + 1) / (12 * normal * anomalous))
    assert (floor.origin, floor.min) == ("floor: chance", pytest.approx(0.5 + deviation))
    by_floor = {
        value: judge([floor], {None: {"auroc": value}}, {}).rows[0]["remedy"] for value in (0.49, 0.5, floor.min, 1.0)
    }
    refused = [value for value, remedy in by_floor.items() if remedy]
    assert refused == [0.49, 0.5]
    assert "add more" in by_floor[0.5]


def test_chance_is_the_spread_of_the_auroc_of_random_scores():
    random = np.random.default_rng(3)
    is_anomaly = np.repeat([0, 1], [30, 20])
    drawn = [roc_auc_score(is_anomaly, random.random(50)) for _ in range(2000)]
    assert chance(30, 20) == pytest.approx(np.std(drawn), rel=0.06)


def test_a_floor_needs_images_of_both_kinds_and_a_value():
    simple = {"PCA": {"synthetic_auroc": 0.7}}
    assert detection_floors(simple, {"synthetic_auroc": (1, 0), "auroc": (5, 5)}) == []
    without = bounds_of(GateSettings(purpose="detect"), pca_error=1.0, knows_anomalies=False)
    assert [(x.metric, x.origin) for x in without] == [
        ("example_count", "counted"),
        ("explained_variance", "constant"),
        ("noise_copied", "identity"),
        ("mean_error", "baseline"),
    ]


@pytest.mark.parametrize(
    ("preset", "source", "purpose"),
    [
        ("residual", "folder", "detect"),
        ("deep", "csv", "detect"),
        ("conv", "tfrecord", "detect"),
        ("deep", "digits", "reconstruct"),
        ("residual", "mnist", "reconstruct"),
        ("denoising", "folder", "reconstruct"),
        ("super_resolution", "folder", "reconstruct"),
    ],
)
def test_the_purpose_follows_from_preset_and_source_unless_it_is_set(preset, source, purpose):
    assert GateSettings().with_purpose(preset=preset, source=source).purpose == purpose
    for given in ("detect", "reconstruct"):
        assert GateSettings(purpose=given).with_purpose(preset=preset, source=source).purpose == given


def test_waived_bounds_and_bounds_without_data_are_left_out():
    waived = GateSettings(max_pca_ratio=None, max_noise_copied=None, min_auroc=None, max_regression=None)
    assert bounds_of(waived, pca_error=1.0, knows_anomalies=True) == [COUNTED]
    unknown = bounds_of(GateSettings(), pca_error=None, knows_anomalies=False)
    assert [bound.origin for bound in unknown] == ["counted", "identity", "baseline"]


def test_tfma_computes_every_metric_of_both_models_overall_and_by_label():
    config = eval_config([COUNTED, Bound("auroc", "configured", min=0.5, label="b")])
    assert [(m.name, m.signature_name, m.is_baseline) for m in config.model_specs] == [
        ("candidate", "examples", False),
        ("baseline", "examples", True),
    ]
    assert [list(spec.feature_keys) for spec in config.slicing_specs] == [[], ["label"]]
    [metrics] = config.metrics_specs
    assert {(m.class_name, m.module) for m in metrics.metrics} == {
        ("ReconstructionMetric", "components.evaluation.tfma_metrics"),
    }
    names = [json.loads(m.config) for m in metrics.metrics]
    assert names == [{"name": name} for name in [*METRICS, "auroc@b"]]
    bounded = [m for m in metrics.metrics if m.per_slice_thresholds]
    assert [json.loads(m.config)["name"] for m in bounded] == ["example_count", "auroc@b"]


PASSING = {
    None: {"example_count": 10.0, "mean_error": 0.25, "ssim": 0.5, "auroc": 0.75, "auroc@b": 0.5},
    "b": {"example_count": 4.0, "mean_error": 0.5, "ssim": 0.4, "auroc": 0.25, "auroc@b": math.nan},
}


def test_a_labels_detection_metrics_are_read_from_the_slice_of_all_images(tmp_path):
    folder = evaluated(tmp_path / "one", [], {**PASSING, "c": {"mean_error": math.nan}})
    assert read_metrics(folder, CANDIDATE) == {
        None: {"example_count": 10.0, "mean_error": 0.25, "ssim": 0.5, "auroc": 0.75},
        "b": {"example_count": 4.0, "mean_error": 0.5, "ssim": 0.4, "auroc": 0.5},
        "c": {},
    }
    assert read_metrics(folder, BASELINE) == {}


def test_the_metrics_of_two_models_are_read_without_their_differences(tmp_path):
    folder = evaluated(tmp_path / "two", [], PASSING, {None: {"mean_error": 0.125}})
    assert read_metrics(folder, CANDIDATE)[None]["mean_error"] == 0.25
    assert set(read_metrics(folder, CANDIDATE)[None]) == {"example_count", "mean_error", "ssim", "auroc"}
    assert read_metrics(folder, BASELINE)[None] == {"mean_error": 0.125}


def test_a_model_passes_every_bound_that_it_meets_even_exactly(tmp_path):
    """Without a baseline, the baseline's bound is skipped."""
    bounds = [
        COUNTED,
        Bound("mean_error", "baseline", max=0.05),
        Bound("mean_error", "PCA floor", max=0.25),
        Bound("ssim", "configured", min=0.5, max=0.5),
        Bound("mean_error", "configured", max=0.5, label="b"),
        Bound("auroc", "configured", min=0.5, label="b"),
    ]
    rows = judged(evaluated(tmp_path / "one", bounds, PASSING), bounds)
    assert rows == [
        {"metric": "example_count", "label": None, "origin": "counted", "min": 1.0, "max": None, "value": 10.0,
         "passed": True, "reason": None, "remedy": None},
        {"metric": "mean_error", "label": None, "origin": "PCA floor", "min": None, "max": 0.25, "value": 0.25,
         "passed": True, "reason": None, "remedy": None},
        {"metric": "ssim", "label": None, "origin": "configured", "min": 0.5, "max": 0.5, "value": 0.5,
         "passed": True, "reason": None, "remedy": None},
        {"metric": "mean_error", "label": "b", "origin": "configured", "min": None, "max": 0.5, "value": 0.5,
         "passed": True, "reason": None, "remedy": None},
        {"metric": "auroc", "label": "b", "origin": "configured", "min": 0.5, "max": None, "value": 0.5,
         "passed": True, "reason": None, "remedy": None},
    ]  # fmt: skip


def test_each_failed_bound_names_the_value_and_the_images(tmp_path):
    bounds = [
        COUNTED,
        Bound("mean_error", "PCA floor", max=0.2),
        Bound("mean_error", "configured", max=0.3),
        Bound("ssim", "configured", min=0.6),
        Bound("auroc", "detection", min=0.76),
        Bound("auroc", "configured", min=0.51, label="b"),
        Bound("mean_error", "configured", max=0.4999, label="b"),
        Bound("psnr", "configured", min=1.0),
        Bound("mean_error", "configured", max=1.0, label="z"),
    ]
    rows = judged(evaluated(tmp_path / "one", bounds, PASSING), bounds)
    not_computed = "could not be computed: no such images, or the data it needs are missing"
    assert verdicts(rows) == {
        ("example_count", None, "counted"): "passed",
        ("mean_error", None, "PCA floor"): "mean_error over all images is 0.25, above the bound 0.2 (PCA floor)",
        ("mean_error", None, "configured"): "passed",
        ("ssim", None, "configured"): "ssim over all images is 0.5, below the bound 0.6",
        ("auroc", None, "detection"): "auroc over all images is 0.75, below the bound 0.76 (detection)",
        ("auroc", "b", "configured"): "auroc over images labelled 'b' is 0.5, below the bound 0.51",
        ("mean_error", "b", "configured"): "mean_error over images labelled 'b' is 0.5, above the bound 0.4999",
        ("psnr", None, "configured"): f"psnr over all images {not_computed}",
        ("mean_error", "z", "configured"): f"mean_error over images labelled 'z' {not_computed}",
    }
    assert [row["passed"] for row in rows] == [row["reason"] is None for row in rows]
    assert [row["passed"] for row in rows] == [row["remedy"] is None for row in rows]


def test_a_value_above_a_two_sided_bound_is_reported_as_above(tmp_path):
    bounds = [Bound("ssim", "configured", min=0.1, max=0.4)]
    [row] = judged(evaluated(tmp_path / "one", bounds, PASSING), bounds)
    assert row["reason"] == "ssim over all images is 0.5, above the bound 0.4"


def test_nan_passes_no_bound(tmp_path):
    bounds = [Bound("mean_error", "configured", max=1.0)]
    [row] = judged(evaluated(tmp_path / "one", bounds, {None: {"mean_error": math.nan}}), bounds)
    assert (row["passed"], row["value"]) == (False, None)


@pytest.mark.parametrize(
    ("metric", "candidate", "limit", "reason"),
    [
        ("mean_error", 0.5625, {"max": 0.5625}, None),
        ("mean_error", 0.57, {"max": 0.5625}, "mean_error over all images is 0.57, above the bound 0.5625 (baseline)"),
        ("mean_error", 0.1, {"max": 0.5625}, None),
        ("ssim", 0.4375, {"min": 0.4375}, None),
        ("ssim", 0.43, {"min": 0.4375}, "ssim over all images is 0.43, below the bound 0.4375 (baseline)"),
        ("ssim", 0.9, {"min": 0.4375}, None),
    ],
)
def test_a_model_may_be_worse_than_the_baseline_by_at_most_the_fraction(metric, candidate, limit, reason, tmp_path):
    bounds = [Bound(metric, "baseline", max=0.125)]
    folder = evaluated(tmp_path / "two", bounds, {None: {metric: candidate}}, {None: {metric: 0.5}})
    [row] = judged(folder, bounds)
    assert row["reason"] == reason
    assert (row["min"], row["max"]) == (limit.get("min"), limit.get("max"))


@pytest.mark.parametrize("metric", ["mean_error", "ssim"])
def test_a_fraction_of_zero_allows_no_regression(metric, tmp_path):
    bounds = [Bound(metric, "baseline", max=0.0)]
    same, worse = 0.5, (0.51 if metric == "mean_error" else 0.49)
    [passed] = judged(evaluated(tmp_path / "same", bounds, {None: {metric: same}}, {None: {metric: 0.5}}), bounds)
    [failed] = judged(evaluated(tmp_path / "worse", bounds, {None: {metric: worse}}, {None: {metric: 0.5}}), bounds)
    assert (passed["passed"], failed["passed"]) == (True, False)
    assert {passed["min"], passed["max"]} == {None, 0.5}


def test_a_labels_regression_is_judged_on_that_label(tmp_path):
    bounds = [Bound("mean_error", "baseline", max=0.1, label="b"), Bound("auroc", "baseline", max=0.1, label="b")]
    candidate = {None: {"mean_error": 0.1, "auroc@b": 0.8}, "b": {"mean_error": 0.3}}
    baseline = {None: {"mean_error": 0.1, "auroc@b": 1.0}, "b": {"mean_error": 0.2}}
    rows = judged(evaluated(tmp_path / "two", bounds, candidate, baseline), bounds)
    assert verdicts(rows) == {
        ("mean_error", "b", "baseline"): "mean_error over images labelled 'b' is 0.3, above the bound 0.22 (baseline)",
        ("auroc", "b", "baseline"): "auroc over images labelled 'b' is 0.8, below the bound 0.9 (baseline)",
    }


def test_a_difficult_label_is_compared_with_its_own_baseline(tmp_path):
    bounds = [Bound("mean_error", "baseline", max=0.1, label="b")]
    values = {None: {"mean_error": 0.01}, "b": {"mean_error": 0.1}}
    [row] = judged(evaluated(tmp_path / "alike", bounds, values, values), bounds)
    assert row["passed"]


def test_a_baseline_that_lacks_the_metric_fails_the_bound(tmp_path):
    bounds = [COUNTED, Bound("ssim", "baseline", max=0.1), Bound("mean_error", "baseline", max=0.1, label="b")]
    folder = evaluated(tmp_path / "two", bounds, PASSING, {None: {"example_count": 10.0}})
    rows = judged(folder, bounds)
    assert verdicts(rows) == {
        ("example_count", None, "counted"): "passed",
        ("ssim", None, "baseline"): "ssim over all images cannot be compared: the baseline model lacks this metric",
        ("mean_error", "b", "baseline"): (
            "mean_error over images labelled 'b' cannot be compared: the baseline model lacks this metric"
        ),
    }
    assert {(row["min"], row["max"]) for row in rows[1:]} == {(None, None)}


def test_the_baselines_metric_is_not_mistaken_for_the_candidates(tmp_path):
    bounds = [Bound("ssim", "configured", min=0.1)]
    [row] = judged(evaluated(tmp_path / "two", bounds, {None: {"psnr": 1.0}}, {None: {"ssim": 0.5}}), bounds)
    assert (row["passed"], row["value"]) == (False, None)


def test_a_label_may_end_like_tfmas_name_of_a_difference(tmp_path):
    folder = evaluated(tmp_path / "one", [], {None: {"mean_error": 0.0, "auroc@a_diff": 0.5}})
    assert read_metrics(folder, CANDIDATE) == {None: {"mean_error": 0.0}, "a_diff": {"auroc": 0.5}}
