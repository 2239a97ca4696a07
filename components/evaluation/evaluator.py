"""ReconstructionEvaluator: the gate, with bounds that need no labels; in every run it proves to fail closed."""

import json
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.types import standard_component_specs as keys

from components.evaluation import gate
from components.evaluation.control_metrics import MetricsByLabel
from components.settings import GateSettings
from runtime.errors import UserError
from schema.artifact_types import Analysis, Artifacts
from schema.artifacts import CONSTANT, CONTROLS_FILE, GATE_FILE, PCA_FLOOR, UNTRAINED, VALIDATIONS_FILE

_ANALYSIS_KEY = "analysis"
_MUST_BE_REFUSED = (UNTRAINED, CONSTANT)
Row = dict[str, Any]
"""One of `gate.judge`'s."""


class OpenGateError(UserError):
    """The gate would bless a model that has learnt nothing; the message names it and the remedy."""


class ReconstructionEvaluatorSpec(component_spec.ComponentSpec):
    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "source_fingerprint": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        _ANALYSIS_KEY: component_spec.ChannelParameter(type=Analysis),
        keys.MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        keys.BASELINE_MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {
        keys.EVALUATION_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        keys.BLESSING_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class ReconstructionEvaluatorExecutor(base_executor.BaseExecutor):
    """Holds the metrics of ModelAnalysis against the bounds: the candidate's, and through the same gate each control's.

    Raises OpenGateError if a control that has learnt nothing would be blessed.
    """

    def Do(  # noqa: N802 - TFX's name
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        settings = GateSettings.model_validate_json(exec_properties["settings"])
        analysis = artifact_utils.get_single_uri(input_dict[_ANALYSIS_KEY])
        controls, knows_anomalies = _read_controls(analysis)
        floor = controls[PCA_FLOOR][None]["mean_error"]
        bounds = gate.bounds_of(settings, pca_error=floor, knows_anomalies=knows_anomalies)
        candidate, baseline = (gate.read_metrics(analysis, name) for name in (gate.CANDIDATE, gate.BASELINE))
        verdict = gate.judge(bounds, candidate, baseline)
        judged = {name: _judge(controls[name], bounds, candidate, baseline) for name in _MUST_BE_REFUSED}
        _require_closed(judged, candidate)
        evaluation = artifact_utils.get_single_instance(output_dict[keys.EVALUATION_KEY])
        by_label = {label: values for label, values in candidate.items() if label is not None}
        report = {
            "blessed": verdict.blessed,
            "metrics": {**candidate[None], "pca_mean_error": floor},
            "metrics_by_label": by_label,
            "baseline_metrics": baseline.get(None, {}),
            "thresholds": verdict.rows,
            "controls_refused": dict.fromkeys(judged, True),
        }
        with fileio.open(f"{evaluation.uri}/{GATE_FILE}", "w") as file:
            file.write(json.dumps(report, indent=2))
        with tf.io.TFRecordWriter(f"{evaluation.uri}/{VALIDATIONS_FILE}") as validations:
            validations.write(verdict.validation.SerializeToString())
        evaluation.set_float_custom_property("mean_error", candidate[None]["mean_error"])
        _bless(verdict.blessed, input_dict, artifact_utils.get_single_instance(output_dict[keys.BLESSING_KEY]))


class ReconstructionEvaluator(base_component.BaseComponent):
    """Decides whether a model may be pushed.

    Outputs `evaluation` (`gate.json`, and TFMA's own record of what was validated) and `blessing`, as TFX's Evaluator.
    """

    SPEC_CLASS = ReconstructionEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ReconstructionEvaluatorExecutor)

    def __init__(
        self,
        *,
        analysis: types.BaseChannel,
        model: types.BaseChannel,
        baseline_model: types.BaseChannel,
        settings: GateSettings,
        source_fingerprint: str,
    ) -> None:
        super().__init__(
            spec=ReconstructionEvaluatorSpec(
                analysis=analysis,
                model=model,
                baseline_model=baseline_model,
                settings=settings.model_dump_json(include=set(GateSettings.model_fields)),
                source_fingerprint=source_fingerprint,
                evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )


def _read_controls(analysis: str) -> tuple[dict[str, MetricsByLabel], bool]:
    """(control -> its metrics, whether the test images are known to hold normal and anomalous ones)."""
    with fileio.open(f"{analysis}/{CONTROLS_FILE}") as file:
        document = json.loads(file.read())
    return {name: dict(metrics) for name, metrics in document["controls"].items()}, document["knows_anomalies"]


def _judge(
    control: MetricsByLabel, bounds: list[gate.Bound], candidate: MetricsByLabel, baseline: MetricsByLabel
) -> list[Row]:
    """A row for each bound, of those that the images tell by which a control was measured.

    These may be a sample: then their number tells nothing, nor does a label that none of them has.
    """
    told = [x for x in bounds if x.metric != "example_count" and (x.label in control or x.label not in candidate)]
    return gate.judge(told, control, baseline).rows


def _require_closed(judged: dict[str, list[Row]], candidate: MetricsByLabel) -> None:
    blessed = {name: rows for name, rows in judged.items() if all(row["passed"] for row in rows)}
    if blessed:
        numbers = "; ".join(
            f"{name}: {', '.join(_beside(row, candidate) for row in rows) or 'no bound says anything of it'}"
            for name, rows in blessed.items()
        )
        raise OpenGateError(
            f"the gate would bless a model that has learnt nothing ({', '.join(blessed)}), so its verdict on the "
            "candidate means nothing either; tighten evaluation.thresholds, or set evaluation.max_pca_ratio. "
            f"Passed by {numbers}"
        )


def _beside(row: Row, candidate: MetricsByLabel) -> str:
    """What a control reached, the bound, and what the candidate reached."""
    limits = [f"{sign} {row[end]:.5g}" for sign, end in ((">=", "min"), ("<=", "max")) if row[end] is not None]
    of_label = "" if row["label"] is None else f" of label {row['label']}"
    own = candidate.get(row["label"], {}).get(row["metric"])
    ours = "none" if own is None else f"{own:.5g}"
    return f"{row['metric']}{of_label} {row['value']:.5g} {' and '.join(limits)} (the candidate: {ours})"


def _bless(is_blessed: bool, input_dict: Artifacts, blessing: types.Artifact) -> None:
    """Write what TFX's Evaluator does: the file, and the properties that Pusher and resolvers go by."""
    compared = {
        (constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): (
            input_dict[keys.MODEL_KEY]
        ),
        (constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY, constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY): (
            input_dict.get(keys.BASELINE_MODEL_KEY, [])
        ),
    }
    for (uri_key, id_key), models in compared.items():
        for model in models:
            blessing.set_string_custom_property(uri_key, model.uri)
            blessing.set_int_custom_property(id_key, model.id)
    name, value = (
        (constants.BLESSED_FILE_NAME, constants.BLESSED_VALUE)
        if is_blessed
        else (constants.NOT_BLESSED_FILE_NAME, constants.NOT_BLESSED_VALUE)
    )
    with fileio.open(f"{blessing.uri}/{name}", "w") as file:
        file.write("")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
