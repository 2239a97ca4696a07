"""`autoencoder report`: finds the report of a run, or writes it."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import PATH, set_option
from pipeline.errors import Command
from runtime.errors import UsageError
from runtime.imports import imported_for_good
from schema.artifacts import REPORT_FILE

if TYPE_CHECKING:  # `--help` must not wait for this import
    from pipeline.metadata.store import MetadataSettings


@click.command(cls=Command)
@click.argument("run", type=PATH, default=Path("configs/digits.yaml"))
@set_option
@click.option("--run-id", help="Id of one of the folder's runs, as `autoencoder runs --json` lists them.")
@click.option("--rebuild", is_flag=True, help="Write the report again from the run's artifacts.")
@click.option("--open", "in_browser", is_flag=True, help="Open it in the browser.")
def report(run: Path, overrides: tuple[str, ...], run_id: str | None, rebuild: bool, in_browser: bool) -> None:
    """Print the path of a run's report, and write it if missing.

    RUN is a run's folder or its configuration (default: configs/digits.yaml).

    Example: autoencoder report runs/digits --open
    """
    from pipeline.configuration.loading import load_configuration
    from pipeline.metadata.store import MetadataSettings

    folder, store = run, MetadataSettings()
    if not run.is_dir():
        if run.suffix not in (".yaml", ".yml"):
            raise UsageError(f"{run}: no such folder; `autoencoder runs` lists the runs")
        configuration = load_configuration(run, overrides)
        folder, store = Path(configuration.root).expanduser() / configuration.name, configuration.metadata
    page = folder / REPORT_FILE
    if run_id or rebuild or not page.exists():
        page = _find_or_build(folder, store, run_id, rebuild=rebuild)
    click.echo(page)
    if in_browser:
        webbrowser.open(page.absolute().as_uri())


def _find_or_build(folder: Path, settings: "MetadataSettings", run_id: str | None, *, rebuild: bool) -> Path:
    from pipeline.local.run import LOG_FILE
    from pipeline.metadata.store import METADATA_FILE, connection_of
    from pipeline.terminal import output_to_log
    from runtime.keras_flavour import use_keras_2

    if settings.backend == "sqlite" and not (folder / METADATA_FILE).exists():
        raise UsageError(f"{folder} holds no run; start one with: autoencoder run")
    use_keras_2()
    with output_to_log(folder / LOG_FILE):
        with imported_for_good():
            from pipeline.local.past_report import find_or_build

        return find_or_build(folder, connection_of(settings, folder), run_id, rebuild=rebuild)
