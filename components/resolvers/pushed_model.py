"""LatestPushedModel: the baseline from where blessed models are pushed, for runners without a Resolver."""

import os

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from schema.artifact_types import Artifacts
from schema.artifacts import SAVED_MODEL_FILE


class LatestPushedModelSpec(component_spec.ComponentSpec):
    PARAMETERS = {"push_destination": component_spec.ExecutionParameter(type=str)}
    INPUTS = {"candidate": component_spec.ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS = {"model": component_spec.ChannelParameter(type=standard_artifacts.Model)}


class LatestPushedModelExecutor(base_executor.BaseExecutor):
    """Copies the newest pushed version; where nothing was pushed yet, leaves the output empty."""

    def Do(  # noqa: N802 - TFX's name
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, str]
    ) -> None:
        newest = newest_version(exec_properties["push_destination"])
        if newest:
            uri = artifact_utils.get_single_uri(output_dict["model"])
            io_utils.copy_dir(newest, path_utils.serving_model_dir(uri))


class LatestPushedModel(base_component.BaseComponent):
    """Output `model`: the newest version below `push_destination`, or an empty folder.

    `candidate` makes the answer part of the candidate's cache entry: a repeated run gets the model that was
    newest when this candidate was new, not the candidate itself.
    """

    SPEC_CLASS = LatestPushedModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(LatestPushedModelExecutor)

    def __init__(self, *, candidate: types.BaseChannel, push_destination: str) -> None:
        super().__init__(
            spec=LatestPushedModelSpec(
                candidate=candidate,
                push_destination=push_destination,
                model=types.Channel(type=standard_artifacts.Model),
            )
        )


def newest_version(push_destination: str) -> str | None:
    """The folder with the highest number for a name that holds a whole SavedModel; None if there is none."""
    if not fileio.exists(push_destination):
        return None
    names = [name.rstrip("/") for name in fileio.listdir(push_destination)]
    for version in sorted((int(name) for name in names if name.isdigit()), reverse=True):
        folder = os.path.join(push_destination, str(version))  # noqa: PTH118 - may be remote
        if fileio.exists(os.path.join(folder, SAVED_MODEL_FILE)):  # noqa: PTH118
            return folder
    return None
