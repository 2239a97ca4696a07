"""ModelAnalysis: measures a model and its controls; the Evaluator then judges the results.

TFX's Evaluator does both at once. Split in two, a changed threshold costs seconds: the measurements stay cached.
"""

import contextlib
import gc
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_transform as tft
from google.protobuf import json_format
from tfx import types
from tfx.components.evaluator import executor as stock
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.utils import json_utils, path_utils

from components.evaluation.bounds import BASELINE, CANDIDATE, eval_config
from components.evaluation.control_metrics import control_metrics_of, floor_metrics_of
from components.evaluation.metrics import SYNTHETIC_AUROC
from components.evaluation.parity_file import write_parity_file
from components.evaluation.reviewed import measure_reviewed
from components.evaluation.steadiness import images_to_change, measure_steadiness, pictures_of
from components.evaluation.synthetic_auroc import count_known, most_images, normal_records, painted, synthetic_aurocs
from components.evaluation.tfma_models import custom_eval_shared_model
from components.evaluation.training_data_check import PixelsOf, pixels_by_transform, require_same_training_data
from images.decoding import Pixels
from images.levels import Levels
from images.region_of_interest import Inside, region_of_interest
from runtime.loaded_models import forget_models, loaded
from runtime.tfrecords import bytes_of, features_of
from schema import features
from schema.artifact_types import Analysis, Artifacts
from schema.artifacts import (
    CONSTANT,
    CONTROLS_FILE,
    CONTROLS_FOLDER,
    NEIGHBOURS_FLOOR,
    PARITY_FILE,
    PCA_FLOOR,
    RECORD_FILE,
    UNTRAINED,
)
from schema.calibration_record import CalibrationRecord
from schema.component_specs import Spec, channels, texts
from schema.signatures import EXAMPLES_SIGNATURE, SCORE_SIGNATURE

_OF_TFX = (keys.EXAMPLES_KEY, keys.MODEL_KEY, keys.BASELINE_MODEL_KEY, keys.SCHEMA_KEY)
"""Inputs of TFX's own executor."""
_CONTROLS = {
    PCA_FLOOR: floor_metrics_of,
    NEIGHBOURS_FLOOR: floor_metrics_of,
    UNTRAINED: control_metrics_of,
    CONSTANT: control_metrics_of,
}
"""Each control, and what measures it on test images."""


_MODEL_HOOK = custom_eval_shared_model.__name__
"""TFX's name for the property that names the function which loads models for TFMA."""


class ModelAnalysisSpec(Spec):
    PARAMETERS = texts("source_fingerprint")
    INPUTS = channels(
        examples=standard_artifacts.Examples,
        model=standard_artifacts.Model,
        transform_graph=standard_artifacts.TransformGraph,
        model_run=standard_artifacts.ModelRun,
        baseline_model=standard_artifacts.Model,
        schema=standard_artifacts.Schema,
        optional=["baseline_model"],
    )
    OUTPUTS = channels(analysis=Analysis)


class ModelAnalysisExecutor(stock.Executor):
    """Runs TFX's Evaluator without thresholds on the candidate and the baseline, and measures the controls.

    Raises TrainingDataMismatchError if the candidate was trained on other images, or preprocesses them differently.
    """

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[keys.MODEL_KEY]))
        forget_models()  # an earlier run in this process may have left its own
        try:
            self._measure(model, input_dict, output_dict["analysis"])
        finally:
            forget_models(but=model)  # the Report shows what it does

    def _measure(self, model: str, input_dict: Artifacts, analyses: list[types.Artifact]) -> None:
        model_run = artifact_utils.get_single_uri(input_dict["model_run"])
        analysis = artifact_utils.get_single_uri(analyses)
        train, held_out, test = (
            artifact_utils.get_split_uri(input_dict[keys.EXAMPLES_KEY], split) for split in features.SPLITS
        )
        transform = tft.TFTransformOutput(artifact_utils.get_single_uri(input_dict[keys.TRANSFORM_GRAPH_KEY]))
        pixels_of = pixels_by_transform(transform.transform_features_layer())
        candidate = loaded(model).signatures
        record = _record_of(model)
        require_same_training_data(
            candidate[EXAMPLES_SIGNATURE], record["image"], pixels_of=pixels_of, train=train, test=test
        )
        with _frequent_garbage_collection():
            super().Do(
                {key: value for key, value in input_dict.items() if key in _OF_TFX},
                {keys.EVALUATION_KEY: analyses},
                {
                    keys.EVAL_CONFIG_KEY: json_format.MessageToJson(eval_config([]), sort_keys=True),
                    keys.EXAMPLE_SPLITS_KEY: json_utils.dumps([features.TEST]),
                    _MODEL_HOOK: f"{custom_eval_shared_model.__module__}.{_MODEL_HOOK}",
                },
            )
        of_controls = loaded(f"{model_run}/{CONTROLS_FOLDER}").signatures
        controls = {name: list(metrics_of(of_controls[name], test).items()) for name, metrics_of in _CONTROLS.items()}
        models = {CANDIDATE: candidate[EXAMPLES_SIGNATURE], **{name: of_controls[name] for name in _CONTROLS}}
        if input_dict.get(keys.BASELINE_MODEL_KEY):
            baseline = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict[keys.BASELINE_MODEL_KEY]))
            models[BASELINE] = loaded(baseline).signatures[EXAMPLES_SIGNATURE]
        measured = {
            "controls": controls,
            **_detection(models, record, test, pixels_of),
            "steadiness": _steadiness(candidate[SCORE_SIGNATURE], record, test, held_out, pixels_of),
            "reviewed": measure_reviewed(models, test),
        }
        with fileio.open(f"{analysis}/{CONTROLS_FILE}", "w") as file:
            file.write(json.dumps(measured))
        write_parity_file(candidate[EXAMPLES_SIGNATURE], test, f"{analysis}/{PARITY_FILE}")


def _detection(models: Mapping[str, Any], record: dict[str, Any], test: str, pixels_of: PixelsOf) -> dict[str, Any]:
    """What is known of the test images, and how well each model finds synthetic defects in the normal ones.

    `models`: name -> signature for tf.Examples; `record`: the candidate's.
    `images`: metric -> (normal images, anomalous images) that it compares; `synthetic`: model -> kind -> AUROC.
    """
    known = count_known(test)
    normal = known[0] + known[features.UNKNOWN]
    size = record["image"]["height_px"], record["image"]["width_px"]
    records = normal_records(test, normal, at_most=most_images(*size))
    synthetic: dict[str, dict[str, float]] = {}
    if len(records) > 1:
        levels = Levels.of_model(record, _files(records))
        images, inside = _images_and_regions(pixels_of, records, record, levels)
        synthetic = synthetic_aurocs(models, painted(images, levels, inside))
    return {
        "knows_anomalies": bool(known[0] and known[1]),
        "images": {"auroc": (normal, known[1]), SYNTHETIC_AUROC: (len(records), len(records))},
        "synthetic": synthetic,
    }


def _steadiness(
    signature: Any, record: dict[str, Any], test: str, held_out: str, pixels_of: PixelsOf
) -> dict[str, Any]:
    """The split and the number of the images that `measure_steadiness` measured, and what it found."""
    is_cross_fitted = CalibrationRecord.from_json(record["calibration"]).method == "cross"
    split, records = images_to_change(record["image"], test, None if is_cross_fitted else held_out)
    if not records:
        return {"split": split, "images": 0, "changes": {}}
    image = {key: record["image"][key] for key in ("height_px", "width_px", "fit")}
    levels = Levels.of_model(record, _files(records))
    images, inside = _images_and_regions(pixels_of, records, record, levels)
    changes = measure_steadiness(signature, images, pictures_of(records, **image), levels, inside)
    return {"split": split, "images": len(records), "changes": changes}


def _images_and_regions(
    pixels_of: PixelsOf, records: list[bytes], record: dict[str, Any], levels: Levels
) -> tuple[Pixels, Inside | None]:
    """Images [N, H, W, C] as the model sees them, in whole levels, and which of their pixels [N, H, W] count."""
    images, regions = [], []
    for pixels in pixels_of(records):
        images.append(levels.images(pixels))
        regions.append(region_of_interest(record["image"], pixels))
    own = [region for region in regions if region is not None]
    return np.concatenate(images), np.concatenate(own) if own else None


def _record_of(model: str) -> dict[str, Any]:
    with fileio.open(f"{model}/{RECORD_FILE}") as file:
        record: dict[str, Any] = json.loads(file.read())
    return record


def _files(records: list[bytes]) -> list[bytes]:
    """The encoded images of serialized examples [N]."""
    return [bytes_of(features_of(record), features.IMAGE) for record in records]


@contextlib.contextmanager
def _frequent_garbage_collection() -> Iterator[None]:
    """Collect reference cycles after every 100 objects instead of 700.

    TFMA leaves one cycle per batch, which holds all data of the batch: few objects, but megabytes.
    """
    usual = gc.get_threshold()
    gc.set_threshold(100, 3, 2)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class ModelAnalysis(base_beam_component.BaseBeamComponent):
    """Outputs `analysis`: TFMA's metrics of candidate and baseline, the controls' metrics, and the parity file."""

    SPEC_CLASS = ModelAnalysisSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(ModelAnalysisExecutor)

    def __init__(self, *, source_fingerprint: str, **inputs: types.BaseChannel) -> None:
        """`inputs`: one channel for each key of ModelAnalysisSpec.INPUTS."""
        super().__init__(spec=ModelAnalysisSpec(source_fingerprint=source_fingerprint, **inputs))
