"""Training on several machines: a worker process on each, which reads its job from a shared file."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from runtime.errors import UserError
from schema.artifacts import JOB_FILE
from trainer.fitting.arguments import component_folder

_REWRITE_SECONDS = 2.0
_JOB_FIELDS = (
    "train_files", "eval_files", "transform_output", "model_run_dir", "base_model", "hyperparameters", "custom_config",
)  # fmt: skip


class WorkerError(UserError):
    """Training on several machines failed; the message says how to continue."""


def fit_on_several_machines(fn_args: FnArgs) -> None:
    """Train in a process of its own, together with those that `autoencoder worker` runs on the other machines.

    TensorFlow must know the other machines before it does anything, which is too late in this process. The workers
    leave a finished checkpoint, which `fit` then finds.
    """
    path = f"{component_folder(fn_args)}/{JOB_FILE}"
    write_job(fn_args, path)
    packages = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer.worker", path], env={**os.environ, "PYTHONPATH": packages}
        )
        status = _wait(process, lambda: write_job(fn_args, path))
    finally:
        tf.io.gfile.remove(path)
    if status:
        raise WorkerError(
            f"training on several machines ended with status {status}, because a worker failed or cannot be reached; "
            "start all workers and run again to continue from the last checkpoint"
        )


def _wait(process: subprocess.Popen[bytes], every_few_seconds: Callable[[], None]) -> int:
    """The exit status of `process`, which is killed if this one ends first; meanwhile calls `every_few_seconds`."""
    try:
        while True:
            try:
                return process.wait(_REWRITE_SECONDS)
            except subprocess.TimeoutExpired:
                every_few_seconds()
    finally:
        process.kill()


def write_job(fn_args: FnArgs, path: str) -> None:
    """Write the job that the worker processes read, atomically.

    It is rewritten every few seconds while training lasts: `autoencoder worker` ignores a file that stays unchanged,
    which a killed run left behind.
    """
    job = {name: getattr(fn_args, name) for name in _JOB_FIELDS}
    with tf.io.gfile.GFile(path + ".partial", "w") as file:
        file.write(json.dumps(job))
    tf.io.gfile.rename(path + ".partial", path, overwrite=True)
