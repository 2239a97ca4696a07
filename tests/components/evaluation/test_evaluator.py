"""The Evaluator component: verdict, blessing, and the check that the gate can refuse a model."""

import json
from dataclasses import asdict

import pytest
import tensorflow_model_analysis as tfma
from tfma_results import evaluated
from tfx.types import standard_artifacts

from components.evaluation.evaluator import OpenGateError, ReconstructionEvaluatorExecutor
from components.settings import GateSettings
from schema.artifact_types import Analysis
from schema.usual_sizes import UsualSizes

CANDIDATE = {
    None: {"example_count": 30_000.0, "mean_error": 0.01, "noise_copied": 0.1, "explained_variance": 0.5, "auroc": 0.7},
    "rare": {"example_count": 3.0, "mean_error": 0.02},
}
PCA = [[None, {"mean_error": 0.05, "auroc": 0.9}]]
LEARNT_NOTHING = [
    [None, {"example_count": 10_000.0, "mean_error": 0.2, "noise_copied": 0.0, "explained_variance": 0.0}]
]
"""Measured on a sample without images labelled `rare`."""


KINDS = ("blob", "scratch")


def judged(
    folder,
    settings,
    *,
    control=LEARNT_NOTHING,
    baseline=None,
    synthetic=None,
    anomalies=False,
    changes=None,
    record=None,
):
    """Run the executor: (gate.json, the blessing, TFMA's validation result).

    `synthetic`: model -> AUROC for synthetic defects, the same for every kind. `record`: the model's, if it has one.
    """
    analysis, model, evaluation, blessing = (
        made() for made in (Analysis, *(getattr(standard_artifacts, x) for x in ("Model", "ModelEvaluation")),
        standard_artifacts.ModelBlessing)
    )  # fmt: skip
    analysis.uri = evaluated(folder / "analysis", [], CANDIDATE, baseline)
    controls = {"pca": PCA, "nearest_neighbours": PCA, "untrained": LEARNT_NOTHING, "constant": control}
    measured = {
        "controls": controls,
        "knows_anomalies": anomalies,
        "images": {"auroc": (40, 30), "synthetic_auroc": (50, 50)},
        "synthetic": {name: dict.fromkeys(KINDS, auroc) for name, auroc in (synthetic or {}).items()},
        "steadiness": {"split": "test", "images": 40, "changes": changes or {}},
        "reviewed": {},
    }
    (folder / "analysis/controls.json").write_text(json.dumps(measured))
    model.uri, model.id = str(folder / "model"), 7
    if record:
        (folder / "model/Format-Serving/assets.extra").mkdir(parents=True)
        (folder / "model/Format-Serving/assets.extra/autoencoder.json").write_text(json.dumps(record))
    evaluation.uri, blessing.uri = str(folder / "evaluation"), str(folder / "blessing")
    for path in (folder / "evaluation", folder / "blessing"):
        path.mkdir()
    ReconstructionEvaluatorExecutor().Do(
        {"analysis": [analysis], "model": [model]},
        {"evaluation": [evaluation], "blessing": [blessing]},
        {"settings": settings.model_dump_json()},
    )
    gate = json.loads((folder / "evaluation/gate.json").read_text())
    return gate, blessing, tfma.load_validation_result(evaluation.uri)


def test_a_model_within_its_bounds_is_blessed_as_by_tfxs_evaluator(tmp_path):
    gate, blessing, validation = judged(tmp_path, GateSettings())
    assert [(row["origin"], row["max"], row["passed"]) for row in gate["thresholds"]] == [
        ("counted", None, True),
        ("PCA floor", 0.05, True),
        ("identity", 0.2, True),
    ]
    assert gate["blessed"]
    assert gate["metrics"] == {**CANDIDATE[None], "pca_mean_error": 0.05}
    assert gate["metrics_by_label"] == {"rare": CANDIDATE["rare"]}
    assert validation.validation_ok
    assert [path.name for path in (tmp_path / "blessing").iterdir()] == ["BLESSED"]
    assert blessing.get_int_custom_property("blessed") == 1
    assert blessing.get_string_custom_property("current_model") == str(tmp_path / "model")
    assert blessing.get_int_custom_property("current_model_id") == 7


def test_a_model_outside_its_bounds_is_refused_and_tfma_records_why(tmp_path):
    gate, blessing, validation = judged(tmp_path, GateSettings(max_pca_ratio=0.1))
    assert not gate["blessed"]
    [refused] = [row for row in gate["thresholds"] if not row["passed"]]
    assert refused["reason"] == "mean_error over all images is 0.01, above the bound 0.005 (PCA floor)"
    [of_slice] = validation.metric_validations_per_slice
    assert [failure.metric_key.name for failure in of_slice.failures] == ["mean_error"]
    assert [path.name for path in (tmp_path / "blessing").iterdir()] == ["NOT_BLESSED"]
    assert blessing.get_int_custom_property("blessed") == 0


def test_a_gate_that_would_bless_a_control_stops_the_run(tmp_path):
    good = [[None, {"example_count": 10_000.0, "mean_error": 0.049, "noise_copied": 0.1}]]
    with pytest.raises(OpenGateError, match=r"learnt nothing \(constant\)") as raised:
        judged(tmp_path, GateSettings(), control=good)
    assert "constant: mean_error 0.049 <= 0.05 (candidate: 0.01), noise_copied 0.1 <= 0.2" in str(raised.value)


@pytest.mark.parametrize(
    "bound",
    [
        {"metric": "example_count", "min": 20_000},  # a sample has fewer
        {"metric": "mean_error", "max": 0.5, "label": "rare"},  # the sample has no such image
    ],
)
def test_bounds_that_a_sample_cannot_answer_do_not_refuse_a_control(tmp_path, bound):
    with pytest.raises(OpenGateError, match=r"learnt nothing \(untrained, constant\)"):
        judged(tmp_path, GateSettings(max_pca_ratio=None, thresholds=[bound]))


def test_a_bound_on_a_missing_label_refuses_every_model(tmp_path):
    settings = GateSettings(max_pca_ratio=None, thresholds=[{"metric": "mean_error", "max": 1.0, "label": "none"}])
    gate, _, _ = judged(tmp_path, settings)
    assert (gate["blessed"], gate["controls_refused"]) == (False, {"untrained": True, "constant": True})


def test_a_control_is_compared_with_the_baseline_too(tmp_path):
    settings = GateSettings(max_pca_ratio=None, max_regression=0.05)
    gate, _, _ = judged(tmp_path, settings, baseline={None: {"mean_error": 0.01}})
    assert gate["blessed"]
    assert gate["baseline_metrics"] == {"mean_error": 0.01}


SYNTHETIC = {"candidate": 0.8, "pca": 0.7, "nearest_neighbours": 0.82, "untrained": 0.99, "constant": 0.5}


def test_good_images_alone_bless_a_model_that_finds_synthetic_defects(tmp_path):
    """Chance is 0.058 for 50 images; PCA's error, which the model exceeds here, is no bound."""
    gate, _, _ = judged(tmp_path, GateSettings(purpose="detect", max_pca_ratio=0.1), synthetic=SYNTHETIC)
    assert (gate["blessed"], gate["purpose"]) == (True, "detect")
    assert gate["metrics"]["synthetic_auroc"] == pytest.approx(0.8)
    floor = {row["metric"]: row for row in gate["thresholds"]}["synthetic_auroc"]
    assert (floor["origin"], floor["min"]) == ("floor: nearest neighbours", pytest.approx(0.82 - 0.058, abs=0.001))
    assert gate["synthetic_auroc"]["candidate"] == {"blob": 0.8, "scratch": 0.8}
    assert gate["simple_models"]["PCA"] == {"synthetic_auroc": pytest.approx(0.7), "auroc": 0.9}


def test_a_model_that_finds_fewer_synthetic_defects_than_a_simple_one_is_refused_with_a_remedy(tmp_path):
    gate, _, _ = judged(tmp_path, GateSettings(purpose="detect"), synthetic={**SYNTHETIC, "pca": 0.9})
    [refused] = [row for row in gate["thresholds"] if not row["passed"]]
    assert refused["reason"] == "synthetic_auroc over all images is 0.8, below the bound 0.841977 (floor: PCA)"
    assert (
        refused["remedy"]
        == "set evaluation.score to auto if it is not, or try the other presets with autoencoder compare"
    )


def test_known_anomalies_must_be_found_as_well_as_simple_models_find_them(tmp_path):
    gate, _, _ = judged(tmp_path, GateSettings(purpose="detect"), synthetic=SYNTHETIC, anomalies=True)
    refused = [(row["metric"], row["origin"]) for row in gate["thresholds"] if not row["passed"]]
    assert refused == [("auroc", "floor: PCA")]


SMALL = "If your defects are small, raise image.height_px and image.width_px"
OTHER_PRESET = "set evaluation.score to auto if it is not, or try the other presets with autoencoder compare"


CALIBRATION = {"threshold": 1.0, "images": 10, "false_alarm_rate": 1 / 11}


def record_of(size, seen, **image):
    """The parts of a model's record that tell how much images of one size (height, width) are scaled down."""
    sizes = UsualSizes.of([size] * 2 + [(8, 8)])
    image |= {"height_px": seen[0], "width_px": seen[1]}
    return {"image": image, "sizes": asdict(sizes), "calibration": CALIBRATION}


@pytest.mark.parametrize(
    ("record", "remedy"),
    [
        (
            record_of((900, 1200), (168, 224), fit="stretch"),
            "your images have 1,200x900 pixels (median) and the model sees 224x168: a defect of 10 pixels has 2. "
            f"{SMALL}, and set image.tiles if they get large (docs/tiles.md); otherwise, {OTHER_PRESET}",
        ),
        (
            record_of((3000, 1000), (300, 300), fit="pad", tiles={"height_px": 100, "width_px": 100}),
            "your images have 1,000x3,000 pixels (median) and the model sees 100x300: a defect of 10 pixels has 1. "
            f"{SMALL} (docs/tiles.md); otherwise, {OTHER_PRESET}",
        ),
        (record_of((300, 400), (168, 224)), OTHER_PRESET),
        (record_of((48, 48), (224, 224)), OTHER_PRESET),
        ({"image": {"height_px": 8, "width_px": 8}, "calibration": CALIBRATION}, OTHER_PRESET),
    ],
)
def test_more_pixels_are_the_first_remedy_for_missed_defects_if_images_are_scaled_down_a_lot(tmp_path, record, remedy):
    """Synthetic defects are painted at the model's size, so they say nothing about the scale."""
    settings = GateSettings(purpose="detect")
    synthetic = {**SYNTHETIC, "pca": 0.9}
    gate, _, _ = judged(tmp_path, settings, synthetic=synthetic, anomalies=True, record=record)
    refused = {row["metric"]: row["remedy"] for row in gate["thresholds"] if not row["passed"]}
    assert refused == {"auroc": remedy, "synthetic_auroc": OTHER_PRESET}


WORSE = {"unchanged": {"alarms": 0.0}, "blur": {"alarms": 1.0}}
FEW = {"calibration": CALIBRATION, "image": {}}


@pytest.mark.parametrize(
    ("purpose", "thresholds", "warnings"),
    [("detect", [], 2), ("detect", [{"metric": "alarms_at_blur", "max": 1.0}], 1), ("reconstruct", [], 0)],
)
def test_what_no_bound_covers_becomes_a_warning_if_the_purpose_is_to_detect(
    tmp_path, monkeypatch, purpose, thresholds, warnings
):
    monkeypatch.setitem(CANDIDATE, None, {**CANDIDATE[None], "recall": 0.1, "recall_at_5pct": 0.5})
    settings = GateSettings(purpose=purpose, thresholds=thresholds)
    gate, _, _ = judged(tmp_path, settings, record=FEW, anomalies=True, changes=WORSE)
    assert len(gate["warnings"]) == warnings


@pytest.mark.parametrize(("depth", "bits", "levels"), [(8, 12, 16), (8, 10, 4), (8, 14, None), (16, 12, None)])
def test_images_that_keep_few_grey_levels_are_a_warning_for_either_purpose(tmp_path, depth, bits, levels):
    """The report's pictures show them nearly black."""
    record = {"image": {"depth": depth}, "images": {"train": 5, "used_bits": bits}, "calibration": CALIBRATION}
    gate, _, _ = judged(tmp_path, GateSettings(), record=record)
    expected = [f"so only {levels} grey levels are left; set image.depth: 16 and image.range: [0, {2**bits - 1}]"]
    assert [warning.partition(", ")[2].partition("byte, ")[2] for warning in gate["warnings"]] == expected * bool(
        levels
    )


def test_models_that_learnt_nothing_are_refused_however_well_they_find_synthetic_defects(tmp_path):
    settings = GateSettings(purpose="detect", max_noise_copied=None)
    gate, _, _ = judged(tmp_path, settings, synthetic={**SYNTHETIC, "constant": 1.0})
    assert gate["controls_refused"] == {"untrained": True, "constant": True}


def test_a_worse_detector_than_the_baseline_is_refused_but_a_higher_error_is_not(tmp_path):
    baseline = {None: {"mean_error": 0.0001}}
    settings = GateSettings(purpose="detect", max_regression=0.05)
    gate, _, _ = judged(tmp_path, settings, baseline=baseline, synthetic={**SYNTHETIC, "baseline": 0.95})
    refused = [(row["metric"], row["origin"]) for row in gate["thresholds"] if not row["passed"]]
    assert refused == [("synthetic_auroc", "baseline")]


CHANGES = {
    name: {"alarms": share, "recall": 0.5} for name, share in [("unchanged", 0.05), ("blur", 0.3), ("shift_1", 0.1)]
}


def test_alarms_at_changes_become_metrics_that_can_be_bounded(tmp_path):
    bounds = [{"metric": "alarms_at_blur", "max": 0.2}, {"metric": "alarms_at_shift_1", "max": 0.1}]
    gate, _, _ = judged(tmp_path, GateSettings(thresholds=bounds), changes=CHANGES)
    assert gate["metrics"] == {
        **CANDIDATE[None],
        "pca_mean_error": 0.05,
        "alarms_at_blur": 0.3,
        "alarms_at_shift_1": 0.1,
    }
    [refused] = [row for row in gate["thresholds"] if not row["passed"]]
    assert refused["reason"] == "alarms_at_blur over all images is 0.3, above the bound 0.2"
    assert "trainer.steady_against" in refused["remedy"]
    assert gate["steadiness"] == {"split": "test", "images": 40, "changes": CHANGES}


def test_alarms_at_changes_are_no_bound_by_default(tmp_path):
    gate, _, _ = judged(tmp_path, GateSettings(), changes={"blur": {"alarms": 1.0, "recall": 1.0}})
    assert gate["blessed"]


def test_a_bound_on_a_change_that_was_not_measured_refuses_the_model(tmp_path):
    gate, _, _ = judged(tmp_path, GateSettings(thresholds=[{"metric": "alarms_at_blur", "max": 0.2}]))
    assert [row["metric"] for row in gate["thresholds"] if not row["passed"]] == ["alarms_at_blur"]


def test_a_bound_on_alarms_alone_does_not_make_the_gate_refuse_models_that_learnt_nothing(tmp_path):
    settings = GateSettings(
        max_pca_ratio=None, max_noise_copied=None, thresholds=[{"metric": "alarms_at_blur", "max": 0.5}]
    )
    with pytest.raises(OpenGateError, match=r"learnt nothing \(untrained, constant\)"):
        judged(tmp_path, settings, changes=CHANGES)


@pytest.mark.parametrize("extra", [{"max_regression": 0.1}, {"max": 0.1, "label": "rare"}])
def test_alarms_at_changes_have_neither_regressions_nor_labels(extra):
    with pytest.raises(ValueError, match="the threshold on alarms_at_blur cannot have a?"):
        GateSettings(thresholds=[{"metric": "alarms_at_blur", **extra}])


def test_a_bound_on_synthetic_auroc_can_be_configured_for_either_purpose(tmp_path):
    settings = GateSettings(thresholds=[{"metric": "synthetic_auroc", "min": 0.85}])
    gate, _, _ = judged(tmp_path, settings, synthetic=SYNTHETIC)
    [refused] = [row for row in gate["thresholds"] if not row["passed"]]
    assert (gate["purpose"], refused["metric"], refused["value"]) == ("reconstruct", "synthetic_auroc", 0.8)
