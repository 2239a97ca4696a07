"""A Pusher whose versions appear all at once: a server that watches the folder never sees half of one.

TFX's own Pusher copies file by file into the folder that is already named as a version, and two pushes in one
second share a name. This one writes under a name that servers ignore, loads the copy in a fresh process, and
only then gives it its number.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from absl import logging
from google.protobuf import json_format
from tfx.components.pusher import component, executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import Channel, artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.utils import io_utils, json_utils

from schema.artifacts import PUSHED_STATISTICS_FOLDER, SAVED_MODEL_FILE

PARTIAL_SUFFIX: Final = ".partial"
ABANDONED_AFTER_S: Final = 24 * 3600
CHECK_TIMEOUT_S: Final = 900
CHECK_MODULE: Final = "serving.smoke_check"
"""Run as a program, not imported: the check is made in a process that has loaded nothing else."""

Check = Callable[[Path], None]
"""Raises when the model in a local folder must not be served."""


class SmokeCheckError(Exception):
    """The model cannot be loaded, or does not answer, in a fresh process."""


@dataclass(frozen=True)
class PushedVersion:
    """Where a model was pushed to, and the number it got."""

    path: str
    number: int


def load_in_fresh_process(folder: Path) -> None:
    """Load the model and replay its warm-up requests in a new process; SmokeCheckError if that fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", CHECK_MODULE, str(folder)],
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


def push(model: str, base: str, *, check: Check, keep: int | None = None) -> PushedVersion:
    """Copy the SavedModel folder `model` below `base` as its newest version; keep `keep` of them (None: all).

    `check` sees the model before any server can; whatever it raises is raised here, and nothing is left.
    Local folders are renamed into place, which is atomic. Object stores (`gs://`, `s3://`) have no such
    rename: there the model is checked in a local copy, then uploaded with `saved_model.pb`, without which no
    loader accepts a version, as the last file.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep {keep}: at least the version that is pushed must stay")
    fileio.makedirs(base)
    pushed = _upload(model, base, check) if _is_remote(base) else _rename_into_place(model, Path(base), check)
    for old in sorted(_versions(base), key=int, reverse=True)[keep:] if keep else []:
        _remove_version(base, old)
    return pushed


def _rename_into_place(model: str, base: Path, check: Check) -> PushedVersion:
    _remove_abandoned(base)
    with _partial_folder(base) as partial:
        io_utils.copy_dir(model, str(partial))
        check(partial)
        number = _next_version(str(base), int(time.time()))
        while True:
            target = base / str(number)
            try:
                # Refused, atomically, where another push has just taken the number.
                partial.rename(target)
            except OSError:
                if not target.exists():
                    raise
                number += 1
                continue
            return PushedVersion(str(target), number)


def _upload(model: str, base: str, check: Check) -> PushedVersion:
    with tempfile.TemporaryDirectory() as local:
        io_utils.copy_dir(model, local)
        check(Path(local))
        # In microseconds, so that two pushes at once get different numbers without a lock.
        number = _next_version(base, time.time_ns() // 1000)
        target = f"{base.rstrip('/')}/{number}"
        io_utils.copy_dir(local, target, deny_regex_patterns=[rf"{SAVED_MODEL_FILE.replace('.', '[.]')}$"])
        io_utils.copy_file(f"{local}/{SAVED_MODEL_FILE}", f"{target}/{SAVED_MODEL_FILE}")
    return PushedVersion(target, number)


@contextlib.contextmanager
def _partial_folder(base: Path) -> Iterator[Path]:
    """A name of our own that no server takes for a version; removed again unless it was renamed."""
    partial = base / f".{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(base: Path) -> None:
    """Remove what pushes that were killed a day ago or more have left."""
    for partial in base.glob(f".*{PARTIAL_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(partial, ignore_errors=True)


def _remove_version(base: str, name: str) -> None:
    """Remove an old version: out of the servers' sight first, then from the disk."""
    logging.info("Removing version %s: newer ones are kept.", name)
    if _is_remote(base):
        fileio.remove(f"{base.rstrip('/')}/{name}/{SAVED_MODEL_FILE}")
        fileio.rmtree(f"{base.rstrip('/')}/{name}")
        return
    with _partial_folder(Path(base)) as out_of_sight, contextlib.suppress(FileNotFoundError):
        (Path(base) / name).rename(out_of_sight)


def _next_version(base: str, now: int) -> int:
    """`now`, or one more than the newest version: what is pushed last is served, whatever the clocks say."""
    return max([now, *(int(name) + 1 for name in _versions(base))])


def _versions(base: str) -> list[str]:
    names = [str(name).rstrip("/") for name in fileio.listdir(base)]
    return [name for name in names if name.isascii() and name.isdigit()]


def _is_remote(path: str) -> bool:
    return "://" in path


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
        model = self.GetModelPath(input_dict)
        config = _config(exec_properties)

        def complete_and_check(folder: Path) -> None:
            """The statistics go along: the next run's images are compared with them."""
            for statistics in input_dict.get(standard_component_specs.STATISTICS_KEY, []):
                io_utils.copy_dir(statistics.uri, str(folder / PUSHED_STATISTICS_FOLDER))
            if config.smoke_check:
                load_in_fresh_process(folder)

        pushed = push(model, _base_directory(exec_properties), check=complete_and_check, keep=config.keep)
        io_utils.copy_dir(model, model_push.uri)
        self._MarkPushed(model_push, pushed_destination=pushed.path, pushed_version=str(pushed.number))
        logging.info("Version %d pushed to %s.", pushed.number, pushed.path)


class AtomicPusherSpec(standard_component_specs.PusherSpec):
    INPUTS = {
        **standard_component_specs.PusherSpec.INPUTS,
        standard_component_specs.STATISTICS_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.ExampleStatistics, optional=True
        ),
    }


class AtomicPusher(component.Pusher):
    """TFX's Pusher, with the same inputs, outputs and properties, and versions that appear all at once.

    One input is new: `statistics`, of the images that the model was trained on, which a version then holds too.

    `custom_config` may say `keep`, how many versions stay (all of them if it does not), and `smoke_check`,
    whether the model is loaded in a fresh process first (True if it does not).
    """

    SPEC_CLASS = AtomicPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicPushExecutor)

    def __init__(
        self,
        model: Any,
        model_blessing: Any = None,
        infra_blessing: Any = None,
        push_destination: Any = None,
        statistics: Any = None,
        custom_config: dict[str, Any] | None = None,
    ) -> None:
        """As TFX's Pusher; raises ValueError for a `custom_config` that this one does not know."""
        if push_destination is None:
            raise ValueError("push_destination: say where to push to")
        PushConfig.parse(custom_config)
        spec = AtomicPusherSpec(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            push_destination=push_destination,
            statistics=statistics,
            custom_config=json_utils.dumps(custom_config),
            pushed_model=Channel(type=standard_artifacts.PushedModel),
        )
        base_component.BaseComponent.__init__(self, spec=spec)  # TFX's own Pusher has no room for another input


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


def _base_directory(exec_properties: dict[str, Any]) -> str:
    """The folder that `push_destination` names; ValueError for another kind of destination."""
    destination = pusher_pb2.PushDestination()
    json_format.Parse(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
    if destination.WhichOneof("destination") != "filesystem" or not destination.filesystem.base_directory:
        raise ValueError(f"push_destination {json.dumps(str(destination))}: only a filesystem is supported")
    return str(destination.filesystem.base_directory)
