"""AtomicPusher: a Pusher whose versions appear all at once, so that a server never sees an incomplete one.

TFX's own Pusher copies file by file into a folder that already has a version's name, and two pushes in the same second
share a name. This one writes under a name that servers ignore, loads the copy in a new process, replays the images of
the analysis against it, and only then renames it to its version number.
"""

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from absl import logging
from google.protobuf import json_format
from tfx import types
from tfx.components.pusher import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.utils import io_utils, json_utils

from components.pusher.destination import PushedVersion, PushError, digest_of, push, versions, withdrawn
from runtime.spare_process import run_program
from schema.artifact_types import Analysis, Artifacts
from schema.artifacts import NOT_PUSHED_BECAUSE, PARITY_FILE, PUSHED_STATISTICS_FOLDER
from schema.component_specs import Spec, channels

CHECK_TIMEOUT_S: Final = 900


def check_in_new_process(folder: Path, *, check_module: str, parity: Path | None = None) -> None:
    """Run `check_module FOLDER [PARITY]` in a process that has loaded no model. Raises PushError if that fails.

    `parity` is ModelAnalysis's file of images and their errors; the served model must compute the same errors.
    """
    done = run_program(check_module, [str(folder), *([str(parity)] if parity else [])], timeout_s=CHECK_TIMEOUT_S)
    if done.returncode != 0:
        reason = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]
        raise PushError(f"the model was not pushed: {reason}")
    logging.info("Smoke check: %s", done.stdout.strip())


def push_checked(
    model: str,
    base: str,
    *,
    analysis: str | None,
    check_module: str | None,
    statistics: str | None = None,
    keep: int | None = None,
) -> PushedVersion:
    """Push after `check_module`, if given, has checked the copy against the images in ModelAnalysis's `analysis`.

    Also copies the folder `statistics`, with which the next run compares its images.
    """
    with tempfile.TemporaryDirectory() as local:
        parity = Path(local) / PARITY_FILE if analysis and fileio.exists(f"{analysis}/{PARITY_FILE}") else None
        if parity:
            io_utils.copy_file(f"{analysis}/{PARITY_FILE}", str(parity))

        def complete_and_check(folder: Path) -> None:
            if statistics:
                io_utils.copy_dir(statistics, str(folder / PUSHED_STATISTICS_FOLDER))
            if check_module:
                check_in_new_process(folder, check_module=check_module, parity=parity)

        return push(model, base, check=complete_and_check, keep=keep)


class AtomicPushExecutor(executor.Executor):
    """Pushes a blessed model; leaves the destination unchanged if the model is not blessed."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Check the blessing, push, and record the version in the properties that TFX's Pusher sets."""
        self._log_startup(input_dict, output_dict, exec_properties)
        model_push = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(model_push)
            return
        destination = pusher_pb2.PushDestination()
        json_format.Parse(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        model, base = self.GetModelPath(input_dict), destination.filesystem.base_directory
        digest = digest_of(model)
        if withdrawal := withdrawn(base).get(digest):
            reason = f"a rollback withdrew this model ({withdrawal.text})"
            logging.warning("Not pushed: %s.", reason)
            model_push.set_string_custom_property(NOT_PUSHED_BECAUSE, reason)
            self._MarkNotPushed(model_push)
            return
        newest = next(iter(versions(base)), None)
        if newest and newest.digest == digest:  # pushed by a run that was killed before it recorded it
            pushed = PushedVersion(newest.path, newest.number)
        else:
            pushed = push_checked(
                model,
                base,
                analysis=_uri(input_dict, "analysis"),
                statistics=_uri(input_dict, "statistics"),
                **json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY]),
            )
        io_utils.copy_dir(model, model_push.uri)
        self._MarkPushed(model_push, pushed_destination=pushed.path, pushed_version=str(pushed.number))
        logging.info("Version %d pushed to %s.", pushed.number, pushed.path)


class AtomicPusherSpec(Spec):
    PARAMETERS = standard_component_specs.PusherSpec.PARAMETERS
    INPUTS = channels(
        model=standard_artifacts.Model,
        model_blessing=standard_artifacts.ModelBlessing,
        analysis=Analysis,
        statistics=standard_artifacts.ExampleStatistics,
        optional=["model_blessing", "analysis", "statistics"],
    )
    OUTPUTS = standard_component_specs.PusherSpec.OUTPUTS
    TYPE_ANNOTATION = standard_component_specs.PusherSpec.TYPE_ANNOTATION


class AtomicPusher(base_component.BaseComponent):
    """TFX's Pusher, but versions appear all at once, and compute the same errors as when they were evaluated.

    `check` is a program, run as `python -m`, that loads the copy in a new process; None skips the check. The images of
    `analysis`, from ModelAnalysis, are replayed against the copy. `statistics` of the training images are copied into
    the version. `keep` is the number of versions to keep; None keeps all.
    """

    SPEC_CLASS = AtomicPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicPushExecutor)

    def __init__(
        self,
        *,
        push_destination: pusher_pb2.PushDestination,
        check: ModuleType | None,
        keep: int | None = None,
        **inputs: types.BaseChannel,
    ) -> None:
        """`inputs`: a channel for each key of AtomicPusherSpec.INPUTS; all but `model` are optional."""
        config = {"keep": keep, "check_module": check.__name__ if check else None}
        super().__init__(
            spec=AtomicPusherSpec(push_destination=push_destination, custom_config=json_utils.dumps(config), **inputs)
        )


def _uri(input_dict: Artifacts, key: str) -> str | None:
    return str(artifact_utils.get_single_uri(input_dict[key])) if input_dict.get(key) else None
