"""`autoencoder submit`: one run of a compiled package on Kubeflow."""

import time
from pathlib import Path
from typing import Any

import click

from pipeline.commands.options import PATH, account_option, param_option, server_of, server_options
from pipeline.errors import Command


@click.command(cls=Command)
@click.argument("package", type=PATH)
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
