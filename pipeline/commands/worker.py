"""`autoencoder worker`: trains on a further machine while the first one runs the pipeline."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from pipeline.commands.options import PATH
from pipeline.errors import Command
from runtime.errors import UsageError, UserError
from runtime.keras_flavour import use_keras_2
from schema.artifacts import JOB_FILE

_POLL_S = 1.0


@click.command(cls=Command)
@click.argument("run_folder", type=PATH)
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=3600.0, help="Seconds to wait for training.")
def worker(run_folder: Path, wait_s: float) -> None:
    """Train with other machines, as the worker that TF_CONFIG names.

    RUN_FOLDER is on a disk that all machines share. Ends when training ends; fails when another machine is lost.
    """
    task = _own_task(os.environ.get("TF_CONFIG", ""))
    if task is None:
        raise UsageError(
            "TF_CONFIG is not set, or is not JSON that names the cluster and this worker's task; see docs/training.md"
        )
    job = run_folder.absolute() / "artifacts" / "Trainer" / JOB_FILE
    click.echo(f"{task['type']} {task['index']}: waiting for {job}")
    if not is_written(job, wait_s):
        raise UserError(f"no training began within {wait_s:.0f} s: start `autoencoder run` on the first machine")
    use_keras_2()
    sys.exit(subprocess.run([sys.executable, "-m", "trainer.worker", str(job)], check=False).returncode)


def _own_task(text: str) -> dict[str, Any] | None:
    """The task in TF_CONFIG, e.g. {"type": "worker", "index": 1}; None if there is none."""
    try:
        task = json.loads(text)["task"]
        return {"type": task["type"], "index": int(task["index"])}
    except (ValueError, TypeError, KeyError):
        return None


def is_written(job: Path, wait_s: float) -> bool:
    """Whether the job is written within `wait_s`; a file that is already there was left by a killed chief."""
    deadline = time.monotonic() + wait_s
    seen = _written_at(job)
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
        if _written_at(job) not in (None, seen):
            return True
    return False


def _written_at(job: Path) -> int | None:
    """Modification time in nanoseconds, by the file server's clock; None while there is no file."""
    try:
        return job.stat().st_mtime_ns
    except FileNotFoundError:
        return None
