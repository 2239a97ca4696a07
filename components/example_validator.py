"""StrictExampleValidator: TFX's ExampleValidator, except that an anomaly stops the run with its explanation."""

from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components import ExampleValidator
from tfx.components.example_validator import executor as stock
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs

from components.image_sources import DataError


class StrictExampleValidatorExecutor(stock.Executor):
    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Validate every split; raises DataError that lists each anomaly."""
        super().Do(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict[standard_component_specs.ANOMALIES_KEY])
        problems = []
        for split in artifact_utils.decode_split_names(artifact.split_names):
            problems += _explain(split, artifact_utils.get_split_uri([artifact], split))
        if problems:
            raise DataError("the images do not fit schema/schema.pbtxt:\n" + "\n".join(problems))


class StrictExampleValidator(ExampleValidator):
    """Same inputs and output as ExampleValidator."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(StrictExampleValidatorExecutor)


def _explain(split: str, split_uri: str) -> list[str]:
    anomalies = anomalies_pb2.Anomalies()
    with fileio.open(f"{split_uri}/{stock.DEFAULT_FILE_NAME}", "rb") as file:
        anomalies.ParseFromString(file.read())
    named = [f"  {split}: {name}: {info.description}" for name, info in sorted(anomalies.anomaly_info.items())]
    if anomalies.HasField("dataset_anomaly_info"):
        named.append(f"  {split}: {anomalies.dataset_anomaly_info.description}")
    return named
