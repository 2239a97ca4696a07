"""A Pusher whose versions appear all at once: a server that watches the folder never sees half of one.

TFX's own Pusher copies file by file into the folder that is already named as a version, and two pushes in one
second share a name. This one writes under a name that servers ignore, loads the copy in a fresh process, replays
the analysis's images against it, and only then gives it its number.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from absl import logging
from google.protobuf import json_format
from tfx import types
from tfx.components.pusher import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.utils import io_utils, json_utils

from components.pusher.destination import PushedVersion, PushError, digest_of, push, versions, withdrawn
from schema.artifact_types import Analysis
from schema.artifacts import NOT_PUSHED_BECAUSE, PARITY_FILE, PUSHED_STATISTICS_FOLDER

_ANALYSIS_KEY = "analysis"
CHECK_TIMEOUT_S: Final = 900
CHECK_MODULE: Final = "serving.model.smoke_check"
"""Run as a program, not imported: the check is made in a process that has loaded nothing else."""


class SmokeCheckError(PushError):
    """The model cannot be loaded, or does not answer, in a fresh process."""


def load_in_fresh_process(folder: Path, *, parity: Path | None = None) -> None:
    """Load the model, replay its warm-up requests and the analysis's images; SmokeCheckError if that fails.

    `parity` is ModelAnalysis's file of images and their errors: served, they must have the same.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", CHECK_MODULE, str(folder), *([str(parity)] if parity else [])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=CHECK_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        told = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]
        raise SmokeCheckError(f"the model was not pushed: {told}")
    logging.info("Smoke check: %s", done.stdout.strip())


def push_checked(
    model: str,
    base: str,
    *,
    analysis: str | None,
    statistics: str | None = None,
    smoke_check: bool = True,
    keep: int | None = None,
) -> PushedVersion:
    """Push after the smoke check, against the images in the folder `analysis`, ModelAnalysis's, where given.

    A copy of the folder `statistics` goes along: the next run's images are compared with those of this model.
    """
    with tempfile.TemporaryDirectory() as local:
        parity = Path(local) / PARITY_FILE if analysis and fileio.exists(f"{analysis}/{PARITY_FILE}") else None
        if parity:
            io_utils.copy_file(f"{analysis}/{PARITY_FILE}", str(parity))

        def complete_and_check(folder: Path) -> None:
            if statistics:
                io_utils.copy_dir(statistics, str(folder / PUSHED_STATISTICS_FOLDER))
            if smoke_check:
                load_in_fresh_process(folder, parity=parity)

        return push(model, base, check=complete_and_check, keep=keep)


class AtomicPushExecutor(executor.Executor):
    """Pushes a blessed model by `push`; a model that is not blessed leaves the destination as it was."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Check the blessings, push, and record where to, in the properties that TFX's Pusher sets."""
        self._log_startup(input_dict, output_dict, exec_properties)
        model_push = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(model_push)
            return
        model, base = self.GetModelPath(input_dict), _base_directory(exec_properties)
        config, digest = _config(exec_properties), digest_of(model)
        if withdrawal := withdrawn(base).get(digest):
            reason = f"a rollback withdrew this model (version {withdrawal['version']}) on {withdrawal['at']}"
            logging.warning("Not pushed: %s.", reason)
            model_push.set_string_custom_property(NOT_PUSHED_BECAUSE, reason)
            self._MarkNotPushed(model_push)
            return
        newest = next(iter(versions(base)), None)
        if newest and newest.digest == digest:  # pushed by a run that was killed before it could say so
            pushed = PushedVersion(newest.path, newest.number)
        else:
            pushed = push_checked(
                model,
                base,
                analysis=_uri(input_dict, _ANALYSIS_KEY),
                statistics=_uri(input_dict, standard_component_specs.STATISTICS_KEY),
                smoke_check=config.smoke_check,
                keep=config.keep,
            )
        io_utils.copy_dir(model, model_push.uri)
        self._MarkPushed(model_push, pushed_destination=pushed.path, pushed_version=str(pushed.number))
        logging.info("Version %d pushed to %s.", pushed.number, pushed.path)


class AtomicPusherSpec(component_spec.ComponentSpec):
    PARAMETERS = standard_component_specs.PusherSpec.PARAMETERS
    INPUTS = {
        standard_component_specs.MODEL_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model),
        standard_component_specs.MODEL_BLESSING_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ModelBlessing, optional=True
        ),
        _ANALYSIS_KEY: component_spec.ChannelParameter(type=Analysis, optional=True),
        standard_component_specs.STATISTICS_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics, optional=True
        ),
    }
    OUTPUTS = standard_component_specs.PusherSpec.OUTPUTS
    TYPE_ANNOTATION = standard_component_specs.PusherSpec.TYPE_ANNOTATION


class AtomicPusher(base_component.BaseComponent):
    """TFX's Pusher, with versions that appear all at once, and that answer as they did when they were measured.

    `analysis` is ModelAnalysis's; its images are replayed against the pushed copy. `statistics` are those of the
    images that the model was trained on; a version holds them too. `custom_config` may say `keep`, how many versions
    stay (all of them if it does not), and `smoke_check`, whether the model is loaded in a fresh process first (True
    if it does not).
    """

    SPEC_CLASS = AtomicPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicPushExecutor)

    def __init__(
        self,
        *,
        model: types.BaseChannel,
        push_destination: pusher_pb2.PushDestination,
        model_blessing: types.BaseChannel | None = None,
        analysis: types.BaseChannel | None = None,
        statistics: types.BaseChannel | None = None,
        custom_config: dict[str, Any] | None = None,
    ) -> None:
        """Raises ValueError for a `custom_config` that it does not know."""
        PushConfig.parse(custom_config)
        super().__init__(
            spec=AtomicPusherSpec(
                model=model,
                model_blessing=model_blessing,
                analysis=analysis,
                statistics=statistics,
                push_destination=push_destination,
                custom_config=json_utils.dumps(custom_config),
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            )
        )


@dataclass(frozen=True)
class PushConfig:
    """What `custom_config` may say."""

    keep: int | None = None
    smoke_check: bool = True

    @classmethod
    def parse(cls, custom_config: dict[str, Any] | None) -> "PushConfig":
        """The configuration in `custom_config`; ValueError for unknown keys or a `keep` below 1."""
        unknown = (custom_config or {}).keys() - {"keep", "smoke_check"}
        if unknown:
            raise ValueError(f"custom_config: unknown {sorted(unknown)}; known are 'keep' and 'smoke_check'")
        config = cls(**(custom_config or {}))
        if config.keep is not None and config.keep < 1:
            raise ValueError(f"custom_config keep {config.keep}: at least 1 version must stay")
        return config


def _config(exec_properties: dict[str, Any]) -> PushConfig:
    text = exec_properties.get(standard_component_specs.CUSTOM_CONFIG_KEY)
    return PushConfig.parse(json_utils.loads(text) if text else None)


def _uri(input_dict: dict[str, list[Any]], key: str) -> str | None:
    return str(artifact_utils.get_single_uri(input_dict[key])) if input_dict.get(key) else None


def _base_directory(exec_properties: dict[str, Any]) -> str:
    """The folder that `push_destination` names; ValueError for another kind of destination."""
    destination = pusher_pb2.PushDestination()
    json_format.Parse(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
    if destination.WhichOneof("destination") != "filesystem" or not destination.filesystem.base_directory:
        raise ValueError(f"push_destination {json.dumps(str(destination))}: only a filesystem is supported")
    return str(destination.filesystem.base_directory)
