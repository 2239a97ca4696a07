"""`autoencoder runs`: every pipeline's runs below a folder."""

import dataclasses
import datetime
import json
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.configuration import Configuration
from pipeline.metadata_store import METADATA_FILE, MetadataSettings, connection_of
from pipeline.terminal import output_to_log


def print_runs(root: Path, configuration: Configuration | None, *, as_json: bool) -> None:
    """Print the runs in each `<root>/<name>/metadata.sqlite`, or in the store that a configuration names.

    Raises MetadataStoreError where that store is a server whose password is not in the environment.
    """
    settings = configuration.metadata if configuration else MetadataSettings()
    folders = [store.parent for store in sorted(root.glob(f"*/{METADATA_FILE}"))]
    if settings.backend != "sqlite":
        folders = [root]
    if not folders and not as_json:
        Console().print(f"no runs in {root} yet; start one with: autoencoder run", highlight=False)
        return
    with output_to_log(Path(os.devnull)):
        from pipeline.history import past_runs
    found = {name: listed for folder in folders for name, listed in past_runs(connection_of(settings, folder)).items()}
    if as_json:
        print(json.dumps({name: [dataclasses.asdict(r) for r in listed] for name, listed in found.items()}, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pipeline", "started", "seconds", "verdict", "mean error", "pushed"):
        table.add_column(column, justify="right" if column in ("seconds", "mean error") else "left")
    for name, listed in found.items():
        for r in listed:
            started = datetime.datetime.fromtimestamp(r.started_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
            error = "" if r.mean_error is None else f"{r.mean_error:.5f}"
            table.add_row(name, started, f"{r.seconds:.1f}", r.verdict, error, r.pushed or "")
    Console(soft_wrap=True).print(table)
