"""LatestPushedModel: finds the baseline where blessed models are pushed, for runners without a Resolver."""

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, path_utils

from components.pusher.destination import newest_version
from schema.artifact_types import Artifacts
from schema.component_specs import Spec, channels, texts


class LatestPushedModelSpec(Spec):
    PARAMETERS = texts("push_destination")
    INPUTS = channels(candidate=standard_artifacts.Model)
    OUTPUTS = channels(model=standard_artifacts.Model)


class LatestPushedModelExecutor(base_executor.BaseExecutor):
    """Copies the newest pushed version; leaves the output empty if nothing was pushed yet."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, str]) -> None:  # noqa: N802
        newest = newest_version(exec_properties["push_destination"])
        if newest:
            uri = artifact_utils.get_single_uri(output_dict["model"])
            io_utils.copy_dir(newest, path_utils.serving_model_dir(uri))


class LatestPushedModel(base_component.BaseComponent):
    """Output `model`: the newest version in `push_destination`, or an empty folder.

    The input `candidate` is part of the cache key: a repeated run gets the model that was newest when this candidate
    was new, not the candidate itself.
    """

    SPEC_CLASS = LatestPushedModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(LatestPushedModelExecutor)

    def __init__(self, *, candidate: types.BaseChannel, push_destination: str) -> None:
        super().__init__(spec=LatestPushedModelSpec(candidate=candidate, push_destination=push_destination))
