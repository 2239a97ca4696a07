"""StrictExampleValidator: like TFX's ExampleValidator, but an anomaly stops the run with an explanation.

Also compares the training images with those that the newest pushed model was trained on (drift), and the held-out
images with the training images (skew).
"""

import json
import logging
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.components.example_validator import executor as stock
from tfx.components.statistics_gen.stats_artifact_utils import BINARY_PB_BASENAME
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.utils import io_utils

from components.example_validator.drift import Change, find_drift, find_skew
from components.pusher.destination import newest_version
from components.settings import DriftSettings
from components.sources.files import DataError
from schema import features
from schema.artifact_types import Artifacts
from schema.artifacts import DRIFT_FILE, PUSHED_STATISTICS_FOLDER
from schema.component_specs import Spec, channels, texts

_LOG = logging.getLogger(__name__)


class StrictExampleValidatorSpec(Spec):
    PARAMETERS = texts("drift", "push_destination", "source_fingerprint")
    INPUTS = channels(statistics=standard_artifacts.ExampleStatistics, schema=standard_artifacts.Schema)
    OUTPUTS = channels(anomalies=standard_artifacts.ExampleAnomalies)


class StrictExampleValidatorExecutor(stock.Executor):
    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Validate every split. Raises DataError that lists the anomalies, or the drift unless it is only a warning."""
        super().Do(input_dict, output_dict, {})
        artifact = artifact_utils.get_single_instance(output_dict[keys.ANOMALIES_KEY])
        problems = []
        for split in artifact_utils.decode_split_names(artifact.split_names):
            problems += _explain(split, artifact_utils.get_split_uri([artifact], split))
        if problems:
            raise DataError(
                "the images do not fit schema/schema.pbtxt; correct the images, or the schema if it is wrong:\n"
                + "\n".join(problems)
            )
        settings = DriftSettings.model_validate_json(exec_properties["drift"])
        if settings.action != "ignore":
            found = _check_drift(input_dict, settings, exec_properties["push_destination"])
            with fileio.open(f"{artifact.uri}/{DRIFT_FILE}", "w") as file:
                file.write(json.dumps(found))


class StrictExampleValidator(base_component.BaseComponent):
    """Same inputs and output as ExampleValidator.

    Looks for the newest pushed model in `push_destination`, but only if the statistics are new, so that a repeated run
    is not compared with itself.
    """

    SPEC_CLASS = StrictExampleValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(StrictExampleValidatorExecutor)

    def __init__(
        self, *, drift: DriftSettings, push_destination: str, source_fingerprint: str, **inputs: types.BaseChannel
    ) -> None:
        """`inputs`: the channels `statistics` and `schema`."""
        super().__init__(
            spec=StrictExampleValidatorSpec(
                drift=drift.model_dump_json(),
                push_destination=push_destination,
                source_fingerprint=source_fingerprint,
                **inputs,
            )
        )


def _explain(split: str, split_uri: str) -> list[str]:
    anomalies = anomalies_pb2.Anomalies()
    with fileio.open(f"{split_uri}/{stock.DEFAULT_FILE_NAME}", "rb") as file:
        anomalies.ParseFromString(file.read())
    named = [f"  {split}: {name}: {info.description}" for name, info in sorted(anomalies.anomaly_info.items())]
    if anomalies.HasField("dataset_anomaly_info"):
        named.append(f"  {split}: {anomalies.dataset_anomaly_info.description}")
    return named


def _check_drift(input_dict: Artifacts, settings: DriftSettings, push_destination: str) -> dict[str, Any]:
    """Raise DataError that explains what changed, or only log it, depending on `settings`.

    Returns `since`, the newest pushed version or None, and in `changes` what drifted since then, in words by feature.
    """
    uri = artifact_utils.get_single_uri(input_dict[keys.STATISTICS_KEY])
    schema_file = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict[keys.SCHEMA_KEY]))
    schema: schema_pb2.Schema = io_utils.SchemaReader().read(schema_file)
    train = _read_statistics(uri, features.TRAIN)
    message = _explain_changes(
        "the held-out images (eval) differ from those of train, so early stopping and the anomaly threshold would "
        "depend on other images than the model learns from:",
        find_skew(train, _read_statistics(uri, features.EVAL), schema, settings.limits),
        "differs",
    )
    pushed = newest_version(push_destination)
    has_reference = bool(pushed) and fileio.exists(f"{pushed}/{PUSHED_STATISTICS_FOLDER}")
    drifted: list[Change] = []
    if has_reference:
        before = _read_statistics(f"{pushed}/{PUSHED_STATISTICS_FOLDER}", features.TRAIN)
        drifted = find_drift(before, train, schema, settings.limits)
        message += _explain_changes(
            f"the training images differ from those of the newest pushed model, {pushed}:", drifted, "drifted"
        )
    if message and settings.action != "warn":
        remedy = (
            "if this change is intended, run once with data.drift.action=warn: the model pushed by that run becomes "
            "the reference"
            if drifted
            else "take both splits from the same images, or accept the difference with data.drift.action=warn"
        )
        raise DataError(f"{message}{remedy}; data.drift.limits sets other limits")
    if message:
        _LOG.warning(message)
    since = pushed if has_reference else None
    return {"since": since, "changes": {change.feature: change.in_words for change in drifted}}


def _explain_changes(heading: str, changes: list[Change], verb: str) -> str:
    if not changes:
        return ""
    return heading + "\n" + "".join(f"  {change.feature} {verb}: {change.in_words}\n" for change in changes)


def _read_statistics(uri: str, split: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    with fileio.open(f"{uri}/Split-{split}/{BINARY_PB_BASENAME}", "rb") as file:
        return statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read())
