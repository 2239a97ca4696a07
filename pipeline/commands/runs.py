"""`autoencoder runs`: the past runs of every pipeline in a folder or in a shared metadata store."""

import dataclasses
import datetime
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import (
    PATH,
    RUNS,
    config_argument_or_option,
    json_option,
    optional_server_options,
    server_of,
)
from pipeline.errors import Command
from runtime.errors import UsageError

if TYPE_CHECKING:  # `--help` must not wait for these imports
    from pipeline.kubeflow.client.server import Server
    from pipeline.metadata.history import PastRun
    from pipeline.metadata.store import MetadataSettings


@click.command(cls=Command)
@config_argument_or_option(required=False)
@click.option("--root", type=PATH, help="Folder of the runs (default: CONFIG's `root`, or runs).")
@optional_server_options
@json_option
def runs(config: Path | None, root: Path | None, as_json: bool, host: str | None, **login: Any) -> None:
    """List runs with verdict, error and duration, newest first.

    A run without a verdict yet is running, or incomplete if it has ended. It is unknown if only the machine that it
    ran on can tell.

    All pipelines in the folder of the runs are listed or, if CONFIG names a database server in `metadata:`, all
    pipelines in that database. CONFIG may also be the folder of one pipeline, such as runs/digits, or of all.

    With --host, the newest 50 runs on a cluster are listed, with the verdicts from its object store (the AWS_*
    variables of docs/kubeflow.md).

    \b
    Examples:
      autoencoder runs configs/digits.yaml
      autoencoder runs runs/digits
      autoencoder runs --host https://kubeflow.example.com/pipeline --namespace alice
    """
    if host:
        _print_runs(_cluster_runs(server_of(host, **login)), "on this cluster", as_json=as_json)
        return
    from pipeline.configuration.loading import load_configuration
    from pipeline.metadata.store import METADATA_FILE, MetadataSettings

    if config is not None and config.is_dir():
        if root is not None:
            raise UsageError(f"--root {root}: leave it out, since {config} is a folder of runs already")
        if (config / METADATA_FILE).exists():
            _print_runs(_past_runs([config], MetadataSettings()), f"in {config}", as_json=as_json)
            return
        config, root = None, config
    if config is None:
        root, settings = root or RUNS, MetadataSettings()
    else:
        configuration = load_configuration(config)
        root, settings = root or Path(configuration.root).expanduser(), configuration.metadata
    _print_runs(
        _past_runs(_folders(root, settings), settings),
        f"in {root} yet; start one with: autoencoder run",
        as_json=as_json,
    )


def _print_runs(found: dict[str, list["PastRun"]], where: str, *, as_json: bool) -> None:
    if as_json:
        listed = {name: [dataclasses.asdict(run) for run in past] for name, past in found.items()}
        click.echo(json.dumps(listed, indent=2))
    elif found:
        _print_table(found)
    else:
        click.echo(f"no runs {where}")


def _cluster_runs(server: "Server") -> dict[str, list["PastRun"]]:
    from pipeline.terminal import output_to_log

    with output_to_log(Path(os.devnull)):
        from pipeline.kubeflow.client.history import cluster_runs
    found, unread = cluster_runs(server)
    if unread:
        click.echo(f"verdicts are missing: {unread}", err=True)
    return found


def _folders(root: Path, settings: "MetadataSettings") -> list[Path]:
    """The folders in `root` that hold a `metadata.sqlite`, or `root` itself if a database server has all runs."""
    from pipeline.metadata.store import METADATA_FILE

    is_server = settings.backend != "sqlite"
    return [root] if is_server else [file.parent for file in sorted(root.glob(f"*/{METADATA_FILE}"))]


def _past_runs(folders: list[Path], settings: "MetadataSettings") -> dict[str, list["PastRun"]]:
    """Pipeline -> its runs, from the `metadata.sqlite` of each folder, or from the database server."""
    from pipeline.metadata.store import MetadataStoreError, connection_of
    from pipeline.terminal import output_to_log

    if not folders:
        return {}
    is_server = settings.backend != "sqlite"
    with output_to_log(Path(os.devnull)):
        from pipeline.metadata.history import past_runs
    found: dict[str, list[PastRun]] = {}
    for folder in folders:
        try:
            found |= past_runs(connection_of(settings, folder), None if is_server else folder)
        except MetadataStoreError as error:
            if is_server:
                raise
            click.echo(str(error), err=True)
    return found


def _print_table(found: dict[str, list["PastRun"]]) -> None:
    from pipeline.terminal import plain_console, plain_table

    columns = ("pipeline", "started", "seconds", "verdict", "mean error", "pushed")
    table = plain_table(columns, right=("seconds", "mean error"), wrapped=("pushed",))
    for name, past in found.items():
        for run in past:
            table.add_row(name, *_cells(run))
    plain_console().print(table)


def _cells(run: "PastRun") -> tuple[str, ...]:
    started = datetime.datetime.fromtimestamp(run.started_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
    verdict = f"{run.verdict}: {run.failed_in}" if run.failed_in else run.verdict
    verdict += f": see {run.machine}" if run.machine else ""
    error = "" if run.mean_error is None else f"{run.mean_error:.3g}"
    pushed = os.path.relpath(run.pushed) if run.pushed and Path(run.pushed).is_relative_to(Path.cwd()) else run.pushed
    return started, f"{run.seconds:.1f}", verdict, error, pushed or ""
