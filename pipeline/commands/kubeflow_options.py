"""Options that `autoencoder submit` and `schedule` share: the Kubeflow server and the service account."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # `--help` must not wait for this import
    from pipeline.kubeflow.client.server import Server

account_option = click.option("--service-account", help="Kubernetes service account of the pods.")


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """The address of Kubeflow, the namespace, and the credentials."""
    for option in (
        click.option("--cookies-file", type=click.Path(path_type=Path), help="File with the Cookie header, for Dex."),
        click.option("--token-file", type=click.Path(path_type=Path), help="File with a bearer token."),
        click.option("--namespace", help="Your namespace, if this Kubeflow has several users."),
        click.option(
            "--host",
            required=True,
            envvar="KUBEFLOW_HOST",
            show_envvar=True,
            help="Address of Kubeflow Pipelines.",
        ),
    ):
        command = option(command)
    return command


def server_of(host: str, namespace: str | None, token_file: Path | None, cookies_file: Path | None) -> "Server":
    """The server that `server_options` describe."""
    from pipeline.kubeflow.client.server import COOKIES_VARIABLE, TOKEN_VARIABLE, Server, read_secret

    return Server(
        host,
        namespace,
        token=read_secret(os.environ, TOKEN_VARIABLE, token_file),
        cookies=read_secret(os.environ, COOKIES_VARIABLE, cookies_file),
    )
