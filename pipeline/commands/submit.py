"""`autoencoder submit`: one run of a compiled package on Kubeflow."""

import time
from pathlib import Path
from typing import Any

import click

from pipeline.commands.kubeflow_options import account_option, server_of, server_options
from pipeline.commands.options import param_option
from pipeline.errors import Command


@click.command(cls=Command)
@click.argument("package", type=click.Path(path_type=Path))
@server_options
@click.option("--experiment", required=True, help="Groups runs; created if it does not exist.")
@click.option("--name", help="The run's name (default: the experiment and the time).")
@param_option
@account_option
def submit(
    package: Path,
    experiment: str,
    name: str | None,
    parameters: dict[str, str],
    service_account: str | None,
    **where: Any,
) -> None:
    """Start one run of a compiled package on Kubeflow.

    The token or the cookies come from KUBEFLOW_TOKEN, KUBEFLOW_COOKIES or a file, never from an option:
    everybody on a machine can see the options of its processes.

    \b
    Example:
      export KUBEFLOW_TOKEN=$(kubectl create token default-editor -n alice --audience pipelines.kubeflow.org)
      autoencoder submit pipeline.yaml --host https://kubeflow.example.com/pipeline --namespace alice \\
        --experiment digits --param epochs=20
    """
    from pipeline.kubeflow.client import runs
    from pipeline.kubeflow.specification import convert_parameters, load_package

    server = server_of(**where)
    values = convert_parameters(load_package(package), parameters)
    run_name = name or f"{experiment} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    run_id = runs.submit(
        server,
        package,
        experiment=experiment,
        run_name=run_name,
        parameters=values,
        service_account=service_account,
    )
    click.echo(f"{run_name}: {server.host.rstrip('/')}/#/runs/details/{run_id}")
