"""`autoencoder report`: finds the report of a run, or writes it."""

import shlex
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import PATH, RUNS, optional_server_options, run_folder, server_of, set_option
from pipeline.errors import Command
from runtime.imports import imported_for_good
from schema.artifacts import REPORT_FILE

if TYPE_CHECKING:  # `--help` must not wait for this import
    from pipeline.kubeflow.client.server import Server
    from pipeline.metadata.store import MetadataSettings


@click.command(cls=Command)
@click.argument("run", type=PATH, default=Path("configs/digits.yaml"))
@set_option
@click.option("--run-id", help="Id of one of the folder's runs, as `autoencoder runs --json` lists them.")
@click.option("--rebuild", is_flag=True, help="Write the report again from the run's artifacts.")
@click.option("--open", "in_browser", is_flag=True, help="Open it in the browser.")
@optional_server_options
def report(
    run: Path,
    overrides: tuple[str, ...],
    run_id: str | None,
    rebuild: bool,
    in_browser: bool,
    host: str | None,
    **login: Any,
) -> None:
    """Print the path of a run's report, and write it if missing.

    RUN is a run's folder or its configuration (default: configs/digits.yaml). With --host, it is the id of a run on
    a cluster, whose report is downloaded from the object store (the AWS_* variables of docs/kubeflow.md).

    \b
    Examples:
      autoencoder report runs/digits --open
      autoencoder report --host https://kubeflow.example.com/pipeline 0d6c1d5e-... --open
    """
    if host:
        _print_page(_download(server_of(host, **login), str(run)), in_browser=in_browser)
        return
    folder, store = run_folder(run, overrides)
    page = folder / REPORT_FILE
    if run_id or rebuild or not page.exists():
        continuing = _command_to_continue(run, folder, overrides)
        page = _find_or_build(folder, store, run_id, rebuild=rebuild, continuing=continuing)
    _print_page(page, in_browser=in_browser)


def _command_to_continue(run: Path, folder: Path, overrides: tuple[str, ...]) -> str:
    """What continues an unfinished run; a run's folder does not record where its configuration lies."""
    if run.is_dir():
        return f"autoencoder run CONFIG, where CONFIG is the configuration with `name: {folder.absolute().name}`"
    settings = [argument for override in overrides for argument in ("--set", override)]
    return shlex.join(["autoencoder", "run", str(run), *settings])


def _print_page(page: Path, *, in_browser: bool) -> None:
    click.echo(page)
    if in_browser:
        webbrowser.open(page.absolute().as_uri())


def _download(server: "Server", run_id: str) -> Path:
    """Download the report of a run on a cluster to `runs/kubeflow/<id>.html`."""
    from pipeline.kubeflow.client.verdicts import read_page

    with server.connect() as client:
        run = client.get_run(run_id)
    content = read_page(run)
    page = RUNS / "kubeflow" / f"{run.run_id}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(content)
    return page


def _find_or_build(
    folder: Path, settings: "MetadataSettings", run_id: str | None, *, rebuild: bool, continuing: str
) -> Path:
    from pipeline.local.run import LOG_FILE
    from pipeline.metadata.store import connection_of, require_run
    from pipeline.terminal import output_to_log
    from runtime.keras_flavour import use_keras_2

    require_run(settings, folder)
    use_keras_2()
    with output_to_log(folder / LOG_FILE):
        with imported_for_good():
            from pipeline.local.past_report import find_or_build

        return find_or_build(folder, connection_of(settings, folder), run_id, rebuild=rebuild, continuing=continuing)
