"""`autoencoder submit`: one run of a compiled package on Kubeflow."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import PATH, account_option, param_option, server_of, server_options
from pipeline.errors import Command
from runtime.errors import DONE, FAILED, REFUSED

if TYPE_CHECKING:  # `--help` must not wait for these imports
    from pipeline.kubeflow.client.runs import ClusterTask
    from pipeline.kubeflow.client.server import Server


_INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended."""


@click.command(cls=Command)
@click.argument("package", type=PATH)
@server_options
@click.option("--experiment", required=True, help="Groups runs; created if it does not exist.")
@click.option("--name", help="The run's name (default: the experiment and the time).")
@param_option
@account_option
@click.option("--watch", is_flag=True, help="Follow the run until it ends, and exit with 0, 1 or 3 as `run` does.")
def submit(
    package: Path,
    experiment: str,
    name: str | None,
    parameters: dict[str, str],
    service_account: str | None,
    watch: bool,
    **where: Any,
) -> None:
    """Start one run of a compiled package on Kubeflow.

    With --watch, it prints each task that ends, the end of the log of one that fails, and the gate's verdict. The
    exit status is then that of the run: 0, 1 if a task failed, 3 if the gate refused the model. Ctrl-C stops
    watching; the run continues.

    The token or the cookies come from KUBEFLOW_TOKEN, KUBEFLOW_COOKIES or a file, never from an option:
    everybody on a machine can see the options of its processes.

    \b
    Example:
      export KUBEFLOW_TOKEN=$(kubectl create token default-editor -n alice --audience pipelines.kubeflow.org)
      autoencoder submit pipeline.yaml --host https://kubeflow.example.com/pipeline --namespace alice \\
        --experiment digits --param epochs=20
    """
    from pipeline.kubeflow.specification import convert_parameters, load_package

    server = server_of(**where)
    values = convert_parameters(load_package(package), parameters)
    run_name = name or f"{experiment} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    with server.connect() as client:
        started = client.create_run_from_pipeline_package(
            str(package),
            arguments=values,
            run_name=run_name,
            experiment_name=experiment,
            namespace=server.namespace,
            enable_caching=None,  # as compiled; True would also cache the data-version task
            service_account=service_account,
        )
    click.echo(f"{run_name}: {server.host.rstrip('/')}/#/runs/details/{started.run_id}")
    if watch:
        sys.exit(_watch(server, started.run_id))


def _watch(server: "Server", run_id: str) -> int:
    """Follow the run; its exit status."""
    from pipeline.kubeflow.client.runs import SUCCEEDED
    from pipeline.kubeflow.client.watch import follow, is_refusal, verdict_of
    from pipeline.kubeflow.names import REFUSED as REFUSED_VERDICT

    try:
        run = follow(server, run_id, _print_task)
        verdict = verdict_of(server, run)
    except KeyboardInterrupt:
        click.echo(f"\nstopped watching; run {run_id} continues. To end it, terminate it on Kubeflow's page", err=True)
        return _INTERRUPTED
    click.echo(f"the run ended: {run.state}" + (f"; {': '.join(verdict)}" if verdict else ""))
    if is_refusal(run) or (run.state == SUCCEEDED and verdict and verdict[0] == REFUSED_VERDICT):
        return REFUSED
    return DONE if run.state == SUCCEEDED else FAILED


def _print_task(task: "ClusterTask", log: list[str]) -> None:
    click.echo(f"{task.name:<24} {task.state:<8} {task.seconds:6.1f} s")
    if task.state == "failed" and not log:
        click.echo(f"  no log; find it with: kubectl logs {task.pods[0] if task.pods else 'POD'} -c main", err=True)
    for line in log:
        click.echo(f"  {line}", err=True)
