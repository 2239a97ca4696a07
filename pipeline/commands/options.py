"""Arguments and options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.errors import UsageError

if TYPE_CHECKING:  # `--help` must not wait for this import
    from pipeline.kubeflow.client.server import Server
    from pipeline.metadata.store import MetadataSettings

RUNS = Path("runs")
"""The folder of all runs, unless a configuration sets `root`."""
PATH = click.Path(path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

DEFAULT_CONFIG = Path("configs/digits.yaml")
config_argument = click.argument("config", type=PATH, default=DEFAULT_CONFIG)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Override a field of the configuration, e.g. --set trainer.epochs=20 (repeatable).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def run_folder(run: Path, overrides: tuple[str, ...]) -> "tuple[Path, MetadataSettings]":
    """The folder of a pipeline's runs, and its metadata store, for that folder itself or its configuration."""
    from pipeline.configuration.loading import load_configuration
    from pipeline.metadata.store import MetadataSettings

    if run.is_dir():
        return run, MetadataSettings()
    if run.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{run}: no such folder; `autoencoder runs` lists the runs")
    configuration = load_configuration(run, overrides)
    return Path(configuration.root).expanduser() / configuration.name, configuration.metadata


def config_argument_or_option(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """CONFIG as an argument; `--config CONFIG` still works."""

    def check(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
        option = context.params.pop("option")
        value = value or option
        if value is None and required:
            raise click.MissingParameter(ctx=context, param=parameter)
        return value

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option("--config", "option", type=PATH, is_eager=True, hidden=True)(command)
        name = "CONFIG" if required else "[CONFIG]"
        return click.argument("config", type=PATH, required=False, callback=check, metavar=name)(command)

    return decorate


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`("a=1",)` -> {"a": "1"}."""
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"{value}: must look like epochs=20")
    return dict(value.split("=", 1) for value in values)


param_option = click.option(
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_pairs,
    help="Set a parameter of the package (repeatable).",
)
account_option = click.option("--service-account", help="Kubernetes service account of the pods.")


_host_option = click.option(
    "--host", required=True, envvar="KUBEFLOW_HOST", show_envvar=True, help="Address of Kubeflow Pipelines."
)
_optional_host_option = click.option("--host", help="Address of Kubeflow Pipelines, for runs on a cluster.")
_login_options = (
    click.option("--cookies-file", type=PATH, help="File with the Cookie header, for Dex."),
    click.option("--token-file", type=PATH, help="File with a bearer token."),
    click.option("--namespace", help="Your namespace, if this Kubeflow has several users."),
)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """The address of Kubeflow, the namespace, and the credentials."""
    for option in (*_login_options, _host_option):
        command = option(command)
    return command


def optional_server_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for commands that also work without a cluster, which ignore KUBEFLOW_HOST."""
    for option in (*_login_options, _optional_host_option):
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
