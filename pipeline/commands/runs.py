"""`autoencoder runs`: every pipeline's runs below a folder."""

import dataclasses
import datetime
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from pipeline.commands.terminal import output_to_log, plain_console
from pipeline.configuration.configuration import Configuration
from pipeline.metadata.store import METADATA_FILE, MetadataSettings, MetadataStoreError, connection_of

if TYPE_CHECKING:
    from pipeline.metadata.history import PastRun


def print_runs(root: Path, configuration: Configuration | None, *, as_json: bool) -> None:
    """Print the runs in each `<root>/<name>/metadata.sqlite`, or in the store that a configuration names.

    Raises MetadataStoreError where that store is a server whose password is not in the environment.
    """
    settings = configuration.metadata if configuration else MetadataSettings()
    folders = [store.parent for store in sorted(root.glob(f"*/{METADATA_FILE}"))]
    if settings.backend != "sqlite":
        folders = [root]
    if not folders and not as_json:
        plain_console().print(f"no runs in {root} yet; start one with: autoencoder run")
        return
    with output_to_log(Path(os.devnull)):
        from pipeline.metadata.history import past_runs
    found: dict[str, list[PastRun]] = {}
    for folder in folders:
        try:
            found |= past_runs(connection_of(settings, folder))
        except MetadataStoreError as error:
            if settings.backend != "sqlite":
                raise
            print(error, file=sys.stderr)
    if as_json:
        print(json.dumps({name: [dataclasses.asdict(r) for r in listed] for name, listed in found.items()}, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pipeline", "started", "seconds", "verdict", "mean error", "pushed"):
        table.add_column(
            column, justify="right" if column in ("seconds", "mean error") else "left", no_wrap=column != "pushed"
        )
    for name, listed in found.items():
        for r in listed:
            table.add_row(name, *_cells(r))
    plain_console().print(table)


def _cells(run: "PastRun") -> tuple[str, ...]:
    started = datetime.datetime.fromtimestamp(run.started_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
    verdict = f"{run.verdict}: {run.failed_in}" if run.failed_in else run.verdict
    error = "" if run.mean_error is None else f"{run.mean_error:.5f}"
    pushed = os.path.relpath(run.pushed) if run.pushed and Path(run.pushed).is_relative_to(Path.cwd()) else run.pushed
    return started, f"{run.seconds:.1f}", verdict, error, pushed or ""
