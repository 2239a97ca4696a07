"""ReconstructionEvaluator: the gate, whose bounds need no labels; every run verifies that it can refuse a model."""

import json
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.utils import path_utils

from components.evaluation import gate
from components.evaluation.advice import advice_on
from components.evaluation.bounds import BASELINE, CANDIDATE, Bound, bounds_of, detection_floors
from components.evaluation.control_metrics import MetricsByLabel
from components.evaluation.metrics import ALARMS, SYNTHETIC_AUROC
from components.evaluation.scaling import more_pixels
from components.settings import GateSettings
from images.levels import few_levels
from images.synthetic_defects import mean_over_kinds
from runtime.errors import UserError
from schema import features
from schema.artifact_types import Analysis, Artifacts
from schema.artifacts import (
    CONSTANT,
    CONTROLS_FILE,
    GATE_FILE,
    NEIGHBOURS_FLOOR,
    PCA_FLOOR,
    RECORD_FILE,
    UNTRAINED,
    USED_BITS,
    VALIDATIONS_FILE,
)
from schema.calibration_record import CalibrationRecord
from schema.component_specs import Spec, channels, texts
from schema.reviewed import REVIEWED

_MUST_BE_REFUSED = (UNTRAINED, CONSTANT)
_SIMPLE_MODELS = {PCA_FLOOR: "PCA", NEIGHBOURS_FLOOR: "nearest neighbours"}
_OF_CANDIDATE = frozenset({"example_count", *ALARMS.values()})
_COMPARED = (SYNTHETIC_AUROC, "auroc")
_COMPARED_MODELS = (keys.BASELINE_MODEL_KEY, keys.MODEL_KEY)
_COUNTED = (*features.SPLITS, REVIEWED)
_CALIBRATED = ("score", "threshold", "false_alarm_rate")
Row = dict[str, Any]
"""A row of `gate.judge`."""


class OpenGateError(UserError):
    """The gate would bless a model that has learnt nothing."""


class ReconstructionEvaluatorSpec(Spec):
    PARAMETERS = texts("settings", "source_fingerprint")
    INPUTS = channels(
        analysis=Analysis,
        model=standard_artifacts.Model,
        baseline_model=standard_artifacts.Model,
        optional=["baseline_model"],
    )
    OUTPUTS = channels(evaluation=standard_artifacts.ModelEvaluation, blessing=standard_artifacts.ModelBlessing)


class ReconstructionEvaluatorExecutor(base_executor.BaseExecutor):
    """Checks the metrics of the candidate against the bounds, and those of the controls, which must be refused.

    Raises OpenGateError if a control that has learnt nothing would be blessed.
    """

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        settings = GateSettings.model_validate_json(exec_properties["settings"])
        analysis = artifact_utils.get_single_uri(input_dict["analysis"])
        models, measured = _read_models(analysis)
        candidate, baseline, simple = models[CANDIDATE], models[BASELINE], _simple_models(models)
        floor = models[PCA_FLOOR][None]["mean_error"]
        knows_anomalies = measured["knows_anomalies"]
        images = {name: x for name, x in measured["images"].items() if knows_anomalies or name == SYNTHETIC_AUROC}
        bounds = bounds_of(
            settings,
            pca_error=floor,
            knows_anomalies=knows_anomalies,
            floors=detection_floors(simple, images),
        )
        record = _record_in(_folder_of(input_dict[keys.MODEL_KEY]))
        verdict = gate.judge(bounds, candidate, baseline, more_pixels=more_pixels(record))
        judged = {name: _judge_control(models[name], bounds, candidate, baseline) for name in _MUST_BE_REFUSED}
        _require_refused(judged, candidate)
        evaluation = artifact_utils.get_single_instance(output_dict[keys.EVALUATION_KEY])
        report = {
            "blessed": verdict.blessed,
            "purpose": settings.purpose or "reconstruct",
            "metrics": {**candidate[None], "pca_mean_error": floor},
            "metrics_by_label": {label: values for label, values in candidate.items() if label is not None},
            "baseline_metrics": baseline.get(None, {}),
            "thresholds": verdict.rows,
            "controls_refused": dict.fromkeys(judged, True),
            "simple_models": simple,
            "synthetic_auroc": measured["synthetic"],
            "steadiness": measured["steadiness"],
            "reviewed": measured["reviewed"],
            "changes": _changes(input_dict),
            "warnings": _warnings(settings, candidate, measured, record),
        }
        with fileio.open(f"{evaluation.uri}/{GATE_FILE}", "w") as file:
            file.write(json.dumps(report, indent=2))
        with tf.io.TFRecordWriter(f"{evaluation.uri}/{VALIDATIONS_FILE}") as validations:
            validations.write(verdict.validation.SerializeToString())
        evaluation.set_float_custom_property("mean_error", candidate[None]["mean_error"])
        _bless(verdict.blessed, input_dict, artifact_utils.get_single_instance(output_dict[keys.BLESSING_KEY]))


class ReconstructionEvaluator(base_component.BaseComponent):
    """Decides whether a model may be pushed.

    Outputs `evaluation` (`gate.json` and TFMA's validation result) and `blessing`, like TFX's Evaluator.
    """

    SPEC_CLASS = ReconstructionEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ReconstructionEvaluatorExecutor)

    def __init__(self, *, settings: GateSettings, source_fingerprint: str, **inputs: types.BaseChannel) -> None:
        """`inputs`: one channel for each key of ReconstructionEvaluatorSpec.INPUTS."""
        gate_settings = settings.model_dump_json(include=set(GateSettings.model_fields))
        super().__init__(
            spec=ReconstructionEvaluatorSpec(settings=gate_settings, source_fingerprint=source_fingerprint, **inputs)
        )


def _read_models(analysis: str) -> tuple[dict[str, MetricsByLabel], Row]:
    """(metrics of candidate, baseline ({} if there is none) and controls; what ModelAnalysis measured of all)."""
    with fileio.open(f"{analysis}/{CONTROLS_FILE}") as file:
        measured: Row = json.loads(file.read())
    models: dict[str, MetricsByLabel] = {name: dict(metrics) for name, metrics in measured["controls"].items()}
    for name in (CANDIDATE, BASELINE):
        models[name] = gate.read_metrics(analysis, name)
    for name, by_kind in measured["synthetic"].items():
        if by_kind and None in models.get(name, {}):
            models[name][None][SYNTHETIC_AUROC] = mean_over_kinds(by_kind)
    found = measured["steadiness"]["changes"]
    models[CANDIDATE][None] |= {metric: found[name]["alarms"] for name, metric in ALARMS.items() if name in found}
    return models, measured


def _warnings(settings: GateSettings, candidate: MetricsByLabel, measured: Row, record: Row) -> list[str]:
    """What the summary and the report warn of, whatever the verdict."""
    if not record:
        return []
    few = few_levels(record["image"].get("depth", 8), record.get("images", {}).get(USED_BITS, 0))
    found = [few] if few else []
    if settings.purpose != "detect":
        return found
    images, calibration = tuple(measured["images"]["auroc"]), CalibrationRecord.from_json(record["calibration"])
    bounded = {threshold.metric for threshold in settings.thresholds}
    return found + advice_on(candidate[None], images, calibration, measured["steadiness"], bounded)


def _changes(input_dict: Artifacts) -> Row:
    """What is different from the baseline: name -> [before, now]; {} without a baseline, or if it was removed."""
    if not input_dict.get(keys.BASELINE_MODEL_KEY):
        return {}
    records = [_record_in(_folder_of(input_dict[key])) for key in _COMPARED_MODELS]
    if not all(records):
        return {}
    before, now = map(_facts, records)
    return {name: [before[name], now[name]] for name in now if name in before and before[name] != now[name]}


def _facts(record: Row) -> Row:
    """What a person would want to know first about a model that differs, of the model's record."""
    calibration = record["calibration"]
    counts = {f"{name} images": record["images"].get(name, 0) for name in _COUNTED if "images" in record}
    return {**counts, **{name: calibration[name] for name in _CALIBRATED}, "preset": record["trainer"]["preset"]}


def _folder_of(models: list[types.Artifact]) -> str:
    folder: str = path_utils.serving_model_path(artifact_utils.get_single_uri(models))
    return folder


def _record_in(folder: str) -> Row:
    """The record beside a model; {} if it was removed."""
    if not fileio.exists(f"{folder}/{RECORD_FILE}"):
        return {}
    with fileio.open(f"{folder}/{RECORD_FILE}") as file:
        record: Row = json.loads(file.read())
    return record


def _simple_models(models: dict[str, MetricsByLabel]) -> dict[str, dict[str, float]]:
    """PCA and nearest neighbours, whose detection is the floor: name -> the metrics that are compared."""
    return {
        readable: {metric: x for metric in _COMPARED if (x := models[name][None].get(metric)) is not None}
        for name, readable in _SIMPLE_MODELS.items()
        if name in models
    }


def _judge_control(
    control: MetricsByLabel, bounds: list[Bound], candidate: MetricsByLabel, baseline: MetricsByLabel
) -> list[Row]:
    """One row for each bound that applies to a control.

    Controls may be measured on a sample, and their steadiness is not measured, so `example_count`, labels that the
    sample lacks, and alarms at changes do not count.
    """
    applicable = [
        x for x in bounds if x.metric not in _OF_CANDIDATE and (x.label in control or x.label not in candidate)
    ]
    return gate.judge(applicable, control, baseline).rows


def _require_refused(judged: dict[str, list[Row]], candidate: MetricsByLabel) -> None:
    blessed = {name: rows for name, rows in judged.items() if all(row["passed"] for row in rows)}
    if blessed:
        numbers = "; ".join(
            f"{name}: {', '.join(_compared(row, candidate) for row in rows) or 'no bound applies to it'}"
            for name, rows in blessed.items()
        )
        raise OpenGateError(
            f"the gate would bless a model that has learnt nothing ({', '.join(blessed)}), so its verdict on the "
            "candidate is worthless; tighten evaluation.thresholds or set evaluation.max_pca_ratio. "
            f"Values that pass: {numbers}"
        )


def _compared(row: Row, candidate: MetricsByLabel) -> str:
    """A control's value, the bound, and the candidate's value."""
    limits = [f"{sign} {row[end]:.5g}" for sign, end in ((">=", "min"), ("<=", "max")) if row[end] is not None]
    of_label = "" if row["label"] is None else f" of label {row['label']}"
    own = candidate.get(row["label"], {}).get(row["metric"])
    ours = "none" if own is None else f"{own:.5g}"
    return f"{row['metric']}{of_label} {row['value']:.5g} {' and '.join(limits)} (candidate: {ours})"


def _bless(is_blessed: bool, input_dict: Artifacts, blessing: types.Artifact) -> None:
    """Write the file and the properties that TFX's Evaluator writes, which the Pusher and resolvers read."""
    for model in input_dict[keys.MODEL_KEY]:
        blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    for model in input_dict.get(keys.BASELINE_MODEL_KEY, []):
        blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY, model.uri)
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY, model.id)
    name = constants.BLESSED_FILE_NAME if is_blessed else constants.NOT_BLESSED_FILE_NAME
    value = constants.BLESSED_VALUE if is_blessed else constants.NOT_BLESSED_VALUE
    with fileio.open(f"{blessing.uri}/{name}", "w") as file:
        file.write("")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
