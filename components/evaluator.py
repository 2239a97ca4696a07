"""ReconstructionEvaluator: TFX's Evaluator with a gate that needs no labels and proves that it fails closed."""

import copy
import json
import os
import tempfile
from typing import Any

from google.protobuf import json_format
from tfx import types
from tfx.components.evaluator import executor as stock
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.utils import json_utils, path_utils

from components import gate
from components.parity import record_parity
from components.same_images import require_same_images
from components.settings import GateSettings
from schema import features
from schema.artifact_types import Artifacts
from schema.artifacts import CONSTANT, CONTROLS_FOLDER, GATE_FILE, PARITY_FILE, PCA_FLOOR, UNTRAINED

MODEL_RUN_KEY = "model_run"
_OF_TFX = (keys.EXAMPLES_KEY, keys.MODEL_KEY, keys.BASELINE_MODEL_KEY, keys.SCHEMA_KEY)
"""What TFX's own executor reads."""
_MUST_BE_REFUSED = (UNTRAINED, CONSTANT)


class OpenGateError(Exception):
    """The gate would bless a model that has learnt nothing; the message names it and the remedy."""


class ReconstructionEvaluatorSpec(component_spec.ComponentSpec):
    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "source_fingerprint": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        keys.EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        keys.MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        keys.TRANSFORM_GRAPH_KEY: component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        MODEL_RUN_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
        keys.BASELINE_MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        keys.SCHEMA_KEY: component_spec.ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {
        keys.EVALUATION_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        keys.BLESSING_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class ReconstructionEvaluatorExecutor(stock.Executor):
    """Runs TFX's executor on the candidate and, through the same gate, on each control.

    Raises OpenGateError if a control that has learnt nothing would be blessed, OtherImagesError for a
    candidate that was trained on, or sees, other images than this run's.
    """

    def Do(  # noqa: N802 - TFX's name
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        settings = GateSettings.model_validate_json(exec_properties["settings"])
        model = artifact_utils.get_single_instance(input_dict[keys.MODEL_KEY])
        train, test = (
            artifact_utils.get_split_uri(input_dict[keys.EXAMPLES_KEY], split)
            for split in (features.TRAIN, features.TEST)
        )
        require_same_images(
            path_utils.serving_model_path(model.uri),
            transform_graph=artifact_utils.get_single_uri(input_dict[keys.TRANSFORM_GRAPH_KEY]),
            train=train,
            test=test,
        )
        evaluation_uri = artifact_utils.get_single_uri(output_dict[keys.EVALUATION_KEY])
        of_pca = self._metrics_of_pca(input_dict)
        bounds = gate.bounds_of(settings, pca_error=of_pca["mean_error"], knows_anomalies="auroc" in of_pca)
        self._evaluate(input_dict, output_dict, bounds)
        rows = gate.judge(evaluation_uri, bounds)
        refused_controls = {name: self._control_is_refused(name, input_dict, bounds) for name in _MUST_BE_REFUSED}
        _require_closed(refused_controls)
        by_label = gate.read_metrics(evaluation_uri, gate.CANDIDATE)
        overall = by_label.pop(None)
        report = {
            "blessed": all(row["passed"] for row in rows),
            "metrics": {**overall, "pca_mean_error": of_pca["mean_error"]},
            "metrics_by_label": by_label,
            "baseline_metrics": gate.read_metrics(evaluation_uri, gate.BASELINE).get(None, {}),
            "thresholds": rows,
            "controls_refused": refused_controls,
        }
        with fileio.open(os.path.join(evaluation_uri, GATE_FILE), "w") as file:  # noqa: PTH118 - may be remote
            file.write(json.dumps(report, indent=2))
        record_parity(path_utils.serving_model_path(model.uri), test, f"{evaluation_uri}/{PARITY_FILE}")
        evaluation = artifact_utils.get_single_instance(output_dict[keys.EVALUATION_KEY])
        evaluation.set_float_custom_property("mean_error", overall["mean_error"])

    def _evaluate(self, input_dict: Artifacts, output_dict: Artifacts, bounds: list[gate.Bound]) -> None:
        """TFX's own executor with our metrics and bounds, on the test split."""
        inputs = {key: value for key, value in input_dict.items() if key in _OF_TFX}
        properties = {
            keys.EVAL_CONFIG_KEY: json_format.MessageToJson(gate.eval_config(bounds), sort_keys=True),
            keys.EXAMPLE_SPLITS_KEY: json_utils.dumps([features.TEST]),
        }
        super().Do(inputs, output_dict, properties)

    def _evaluate_control(
        self, name: str, input_dict: Artifacts, bounds: list[gate.Bound], folder: str
    ) -> standard_artifacts.ModelBlessing:
        """Judge `<model_run>/controls/<name>` in place of the candidate, leaving the results in `folder`."""
        model_run = artifact_utils.get_single_instance(input_dict[MODEL_RUN_KEY])
        candidate = artifact_utils.get_single_instance(input_dict[keys.MODEL_KEY])
        control = standard_artifacts.Model()
        control.set_mlmd_artifact(copy.deepcopy(candidate.mlmd_artifact))
        control.uri = os.path.join(model_run.uri, CONTROLS_FOLDER, name)  # noqa: PTH118 - may be remote
        evaluation, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
        evaluation.uri = os.path.join(folder, "evaluation")  # noqa: PTH118
        blessing.uri = os.path.join(folder, "blessing")  # noqa: PTH118
        outputs = {keys.EVALUATION_KEY: [evaluation], keys.BLESSING_KEY: [blessing]}
        self._evaluate({**input_dict, keys.MODEL_KEY: [control]}, outputs, bounds)
        return blessing

    def _metrics_of_pca(self, input_dict: Artifacts) -> dict[str, float]:
        without_baseline = {key: value for key, value in input_dict.items() if key != keys.BASELINE_MODEL_KEY}
        with tempfile.TemporaryDirectory(dir=self._get_tmp_dir()) as folder:
            self._evaluate_control(PCA_FLOOR, without_baseline, [], folder)
            return gate.read_metrics(f"{folder}/evaluation", gate.CANDIDATE)[None]

    def _control_is_refused(self, name: str, input_dict: Artifacts, bounds: list[gate.Bound]) -> bool:
        with tempfile.TemporaryDirectory(dir=self._get_tmp_dir()) as folder:
            blessing = self._evaluate_control(name, input_dict, bounds, folder)
        return blessing.get_int_custom_property("blessed") != 1


class ReconstructionEvaluator(base_beam_component.BaseBeamComponent):
    """Decides whether a model may be pushed.

    Outputs `evaluation` (TFMA's results and `gate.json`) and `blessing`, as TFX's Evaluator does.
    """

    SPEC_CLASS = ReconstructionEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(ReconstructionEvaluatorExecutor)

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        model: types.BaseChannel,
        model_run: types.BaseChannel,
        baseline_model: types.BaseChannel,
        schema: types.BaseChannel,
        settings: GateSettings,
        source_fingerprint: str,
    ) -> None:
        super().__init__(
            spec=ReconstructionEvaluatorSpec(
                examples=examples,
                transform_graph=transform_graph,
                model=model,
                model_run=model_run,
                baseline_model=baseline_model,
                schema=schema,
                settings=settings.model_dump_json(),
                source_fingerprint=source_fingerprint,
                evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )


def _require_closed(refused: dict[str, bool]) -> None:
    blessed = [name for name, is_refused in refused.items() if not is_refused]
    if blessed:
        raise OpenGateError(
            f"the gate would bless a model that has learnt nothing ({', '.join(blessed)}), so its verdict on the "
            "candidate means nothing either; tighten evaluation.thresholds, or set evaluation.max_pca_ratio"
        )
