"""`autoencoder rehearse`: a compiled package, simulated on this machine."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import PATH, json_option, param_option
from pipeline.errors import Command
from runtime.errors import DONE, FAILED

if TYPE_CHECKING:  # `--help` must not wait for this import
    from pipeline.kubeflow.simulator.rehearsal import TaskOutcome


@click.command(cls=Command)
@click.argument("package", type=PATH)
@param_option
@click.option("--folder", type=PATH, default=Path("runs/rehearsal"), help="Folder for logs, artifacts and the cache.")
@click.option(
    "--retry-policy",
    type=click.Choice(["OnError", "Always"]),
    default="OnError",
    show_default=True,
    help="The retryPolicy of Argo's controller; Kubeflow Pipelines 2.17 installs OnError.",
)
@click.option("--s3", is_flag=True, help="Use the S3 server of AWS_ENDPOINT_URL instead of a folder as object store.")
@json_option
def rehearse(
    package: Path, parameters: dict[str, str], folder: Path, retry_policy: str, s3: bool, as_json: bool
) -> None:
    """Simulate a compiled package on this machine.

    It runs as Kubeflow Pipelines 2.17 would run it; this is a rehearsal, not a run on Kubeflow. Simulated: the check
    of both documents, the order of tasks, parameters and their types, output locations, download and upload of
    artifacts and logs, an empty folder for each pod, what gets lost between tasks, cache keys, retries (without the
    wait), and the package's real commands as processes.

    Not simulated: the rest of Argo, the content of the image, other users and volumes, credentials (unless --s3),
    quotas, resource limits, GPU scheduling, and TFJobs: the Trainer trains alone.

    \b
    Example:
      autoencoder rehearse pipeline.yaml --param epochs=3
    """
    from pipeline.kubeflow.simulator.rehearsal import Rehearsal

    folder = folder.absolute()
    rehearsal = Rehearsal(package, folder, parameters, _pod_variables(folder, s3=s3), retry_policy=retry_policy)
    outcomes = rehearsal.run(lambda outcome: None if as_json else click.echo(_line(outcome)))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2))
    else:
        click.echo(f"logs in {folder / 'logs'}" + ("" if s3 else f", artifacts in {folder / 'store'}"))
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        click.echo(f"{outcome.name} failed: {outcome.error}", err=True)
    sys.exit(FAILED if failed else DONE)


def _line(outcome: "TaskOutcome") -> str:
    attempt = f", attempt {outcome.attempts}" if outcome.attempts > 1 else ""
    return f"{outcome.name:<24} {outcome.state:<8} {outcome.seconds:6.1f} s{attempt}"


def _pod_variables(folder: Path, *, s3: bool) -> dict[str, str]:
    from runtime.object_store import REHEARSAL_STORE_VARIABLE

    if s3:
        return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    store = folder / "store"
    store.mkdir(parents=True, exist_ok=True)
    return {REHEARSAL_STORE_VARIABLE: str(store)}
