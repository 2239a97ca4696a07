"""CuratedSchemaGen: like TFX's ImportSchemaGen, but cached by the schema's content instead of its path."""

import os
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts

from schema.artifact_types import Artifacts
from schema.component_specs import Spec, channels, texts

_FILE_NAME = "schema.pbtxt"


class CuratedSchemaGenSpec(Spec):
    PARAMETERS = texts("schema_text")
    OUTPUTS = channels(schema=standard_artifacts.Schema)


class CuratedSchemaGenExecutor(base_executor.BaseExecutor):
    """Writes the schema as `schema.pbtxt`, the name that TFX expects."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        uri = artifact_utils.get_single_uri(output_dict["schema"])
        with fileio.open(os.path.join(uri, _FILE_NAME), "w") as file:  # noqa: PTH118 - may be remote
            file.write(exec_properties["schema_text"])


class CuratedSchemaGen(base_component.BaseComponent):
    """Output `schema`: the reviewed schema `schema_text`, a Schema proto in text format.

    Raises `text_format.ParseError` when the pipeline is built if the text is not a valid Schema.
    """

    SPEC_CLASS = CuratedSchemaGenSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(CuratedSchemaGenExecutor)

    def __init__(self, *, schema_text: str) -> None:
        text_format.Parse(schema_text, schema_pb2.Schema())
        super().__init__(spec=CuratedSchemaGenSpec(schema_text=schema_text))
