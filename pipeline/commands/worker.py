"""`autoencoder worker`: what the other machines run while one of them runs the pipeline."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from runtime.errors import BAD_USAGE
from runtime.keras_flavour import use_keras_2
from schema.artifacts import JOB_FILE

_POLL_S = 1.0


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--wait", "wait_s", type=float, default=3600.0, show_default=True, help="Seconds to wait for training.")
def worker(run_folder: Path, wait_s: float) -> None:
    """Take part in the training of the run in RUN_FOLDER, as the worker that TF_CONFIG names.

    RUN_FOLDER lies on a disk that all machines share. Ends when training has ended; fails when another machine is lost.
    """
    task = _own_task(os.environ.get("TF_CONFIG", ""))
    if task is None:
        click.echo(
            "TF_CONFIG is not set, or no JSON that names the cluster and this worker's task; see docs/training.md",
            err=True,
        )
        sys.exit(BAD_USAGE)
    job = run_folder.absolute() / "artifacts" / "Trainer" / JOB_FILE
    click.echo(f"{task['type']} {task['index']}: waiting for {job}")
    if not appears(job, wait_s):
        click.echo(f"no training began within {wait_s:.0f} s", err=True)
        sys.exit(1)
    use_keras_2()
    sys.exit(subprocess.run([sys.executable, "-m", "trainer.worker", str(job)], check=False).returncode)


def _own_task(text: str) -> dict[str, Any] | None:
    """{"type": "worker", "index": 1} or the like; None where the text has none."""
    try:
        task = json.loads(text)["task"]
        return {"type": task["type"], "index": int(task["index"])}
    except (ValueError, TypeError, KeyError):
        return None


def appears(job: Path, wait_s: float) -> bool:
    """Whether the job is written within that time: one that nobody writes anew was left by a chief that was killed."""
    deadline = time.monotonic() + wait_s
    seen = _written_at(job)
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
        if _written_at(job) not in (None, seen):
            return True
    return False


def _written_at(job: Path) -> int | None:
    """Nanoseconds, by the clock of whoever keeps the file; None while there is none."""
    try:
        return job.stat().st_mtime_ns
    except FileNotFoundError:
        return None
