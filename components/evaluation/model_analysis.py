"""ModelAnalysis: everything that is measured of a model and its controls; what it is worth, the Evaluator says.

TFX's Evaluator does both in one. Apart, another threshold costs seconds: only the verdict is made anew.
"""

import contextlib
import gc
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from tfx import types
from tfx.components.evaluator import executor as stock
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.utils import json_utils, path_utils

from components.evaluation import gate
from components.evaluation.control_metrics import CONTROL_IMAGES, FLOOR_IMAGES, knows_anomalies, metrics_of
from components.evaluation.parity import record_parity
from components.evaluation.same_images import require_same_images
from schema import features
from schema.artifact_types import Analysis, Artifacts
from schema.artifacts import CONSTANT, CONTROLS_FILE, CONTROLS_FOLDER, PARITY_FILE, PCA_FLOOR, UNTRAINED

ANALYSIS_KEY = "analysis"
MODEL_RUN_KEY = "model_run"
_OF_TFX = (keys.EXAMPLES_KEY, keys.MODEL_KEY, keys.BASELINE_MODEL_KEY, keys.SCHEMA_KEY)
"""What TFX's own executor reads."""


class ModelAnalysisSpec(component_spec.ComponentSpec):
    PARAMETERS = {"source_fingerprint": component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        keys.EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        keys.MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        keys.TRANSFORM_GRAPH_KEY: component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        MODEL_RUN_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
        keys.BASELINE_MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        keys.SCHEMA_KEY: component_spec.ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {ANALYSIS_KEY: component_spec.ChannelParameter(type=Analysis)}


class ModelAnalysisExecutor(stock.Executor):
    """Runs TFX's Evaluator without thresholds on the candidate and the baseline, and measures the controls.

    Raises OtherImagesError for a candidate that was trained on, or sees, other images than this run's.
    """

    def Do(  # noqa: N802 - TFX's name
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[keys.MODEL_KEY]))
        model_run = artifact_utils.get_single_uri(input_dict[MODEL_RUN_KEY])
        analysis = artifact_utils.get_single_uri(output_dict[ANALYSIS_KEY])
        train, test = (
            artifact_utils.get_split_uri(input_dict[keys.EXAMPLES_KEY], split)
            for split in (features.TRAIN, features.TEST)
        )
        require_same_images(
            model,
            transform_graph=artifact_utils.get_single_uri(input_dict[keys.TRANSFORM_GRAPH_KEY]),
            train=train,
            test=test,
        )
        with _cycles_found_soon():
            super().Do(
                {key: value for key, value in input_dict.items() if key in _OF_TFX},
                {keys.EVALUATION_KEY: output_dict[ANALYSIS_KEY]},
                {
                    keys.EVAL_CONFIG_KEY: json_format.MessageToJson(gate.eval_config([]), sort_keys=True),
                    keys.EXAMPLE_SPLITS_KEY: json_utils.dumps([features.TEST]),
                },
            )
        controls = {}
        for name, images in ((PCA_FLOOR, FLOOR_IMAGES), (UNTRAINED, CONTROL_IMAGES), (CONSTANT, CONTROL_IMAGES)):
            control = path_utils.serving_model_path(f"{model_run}/{CONTROLS_FOLDER}/{name}")
            controls[name] = list(metrics_of(control, test, at_most=images).items())
        with fileio.open(f"{analysis}/{CONTROLS_FILE}", "w") as file:
            file.write(json.dumps({"knows_anomalies": knows_anomalies(test), "controls": controls}))
        record_parity(model, test, f"{analysis}/{PARITY_FILE}")


@contextlib.contextmanager
def _cycles_found_soon() -> Iterator[None]:
    """Python looks for reference cycles after every 100 objects instead of 700.

    TFMA leaves one behind for each batch, with all that is known of its images: few objects, but megabytes.
    """
    usual = gc.get_threshold()
    gc.set_threshold(100, 3, 2)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class ModelAnalysis(base_beam_component.BaseBeamComponent):
    """Outputs `analysis`: TFMA's metrics of candidate and baseline, those of the controls, and images to replay."""

    SPEC_CLASS = ModelAnalysisSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(ModelAnalysisExecutor)

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        model: types.BaseChannel,
        model_run: types.BaseChannel,
        baseline_model: types.BaseChannel,
        schema: types.BaseChannel,
        source_fingerprint: str,
    ) -> None:
        super().__init__(
            spec=ModelAnalysisSpec(
                examples=examples,
                transform_graph=transform_graph,
                model=model,
                model_run=model_run,
                baseline_model=baseline_model,
                schema=schema,
                source_fingerprint=source_fingerprint,
                analysis=types.Channel(type=Analysis),
            )
        )
