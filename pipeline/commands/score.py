"""`autoencoder score`: scores image files with a model or a server."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import FOLDER, PATH, RUNS
from pipeline.commands.serve import quieten_tensorflow
from pipeline.errors import Command
from runtime.errors import DONE, FAILED, UsageError
from runtime.imports import imported_for_good
from schema.signatures import DEFAULT_MODEL_NAME

if TYPE_CHECKING:  # `--help` must not wait for what these import
    from serving.client import Login
    from serving.scoring import FileScore, Scorer

TOKEN_VARIABLE = "AUTOENCODER_TOKEN"  # noqa: S105 - its name
MAX_STEM_BYTES = 200
"""Most disks limit a file's name to 255 bytes, and an overlay's name also has a number and a suffix."""


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A run's folder, a serving folder or a SavedModel; by default the one pushed last below runs/.",
)
@click.option("--server", help="Use a server instead: http://host:8501 or grpc://host:8500.")
@click.option("--model_name", "--model-name", default=DEFAULT_MODEL_NAME, help="The model's name on the server.")
@click.option("--token-file", type=PATH, help=f"File with the server's token (default: {TOKEN_VARIABLE}).")
@click.option("--ca-file", type=PATH, help="PEM file with the certificates to trust for https:// and grpcs://.")
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "jsonl"]), default="table", help="Format of the output."
)
@click.option("--overlays", type=FOLDER, help="Write image, reconstruction and heat map side by side into this folder.")
@click.option("--runner", help="Score on Beam, for more images than one machine handles: FlinkRunner, ...")
@click.option("--output", metavar="PREFIX", help="With --runner: write JSON Lines to PREFIX-00000-of-00001.jsonl ...")
@click.option("--beam-arg", "beam_args", multiple=True, metavar="--NAME=VALUE", help="An option for Beam (repeatable).")
def score(
    images: tuple[str, ...],
    model: Path | None,
    server: str | None,
    model_name: str,
    token_file: Path | None,
    ca_file: Path | None,
    form: str,
    overlays: Path | None,
    runner: str | None,
    output: str | None,
    beam_args: tuple[str, ...],
) -> None:
    """Score image files.

    A score says how much an image differs from the images that the model was trained on. IMAGES are files, folders
    (searched recursively) or patterns such as 'parts/*.png'. Results go to standard output, one line per file;
    files that cannot be scored are reported and skipped. Exit code 1 only if every file failed, or the server.
    """
    if model is not None and server is not None:
        raise UsageError("--model and --server exclude each other")
    if runner is not None:
        if output is None or server is not None or overlays is not None or form != "table":
            raise UsageError("--runner needs --output, and excludes --server, --overlays and --format")
        sys.exit(_score_on_beam(images, model, output, [f"--runner={runner}", *beam_args]))
    if output is not None or beam_args:
        raise UsageError("--output and --beam-arg work only with --runner")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may not be valid text
        sys.stdout.reconfigure(errors="backslashreplace")
    from serving.image_files import image_files
    from serving.scoring import score_files

    paths = list(image_files(images))
    login = _login(token_file, ca_file)
    scorer = _scorer(model, server, model_name, login, with_maps=overlays is not None)
    results = score_files(paths, scorer)
    failed = _write_results(_with_overlays(_with_progress(results, len(paths)), overlays), form)
    if failed:
        click.echo(f"{failed} of {len(paths)} files could not be scored", err=True)
    if failed == len(paths):
        sys.exit(FAILED)


def _score_on_beam(images: tuple[str, ...], model: Path | None, output: str, arguments: list[str]) -> int:
    quieten_tensorflow()
    with imported_for_good():
        from serving.beam_scoring import score_on_beam
    from serving.model.versions import newest_base_folder, saved_model_folder

    folder = saved_model_folder(model or newest_base_folder(RUNS)).absolute()
    scored, failed = score_on_beam(images, folder, output, arguments)
    click.echo(f"{scored:,} files scored, {failed:,} could not be: {output}-*.jsonl", err=True)
    return DONE if scored else FAILED


def _login(token_file: Path | None, ca_file: Path | None) -> "Login":
    from serving.client import Login

    if ca_file is not None and not ca_file.is_file():
        raise UsageError(f"--ca-file {ca_file}: no such file")
    if token_file is None:
        return Login(os.environ.get(TOKEN_VARIABLE) or None, ca_file)
    try:
        # The server accepts each of its file's lines.
        return Login(token_file.read_text(encoding="utf-8").split()[0], ca_file)
    except (OSError, UnicodeDecodeError, IndexError) as error:
        reason = "is empty" if isinstance(error, IndexError) else f"cannot be read: {error}"
        raise UsageError(f"--token-file {token_file}: {reason}") from None


def _scorer(model: Path | None, server: str | None, model_name: str, login: "Login", *, with_maps: bool) -> "Scorer":
    from serving.model.versions import newest_base_folder, saved_model_folder
    from serving.scoring import local_scorer, server_scorer

    quieten_tensorflow()
    if server is not None:
        return server_scorer(server, model_name=model_name, with_maps=with_maps, login=login)
    return local_scorer(saved_model_folder(model or newest_base_folder(RUNS)), with_maps=with_maps)


def _with_progress(results: Iterable["FileScore"], total: int) -> Iterable["FileScore"]:
    """The same results, with a progress bar on standard error if that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(results, "Scoring", total=total, console=console, transient=True, disable=not sys.stderr.isatty())


def _with_overlays(results: Iterable["FileScore"], folder: Path | None) -> Iterator["FileScore"]:
    """The same results; writes a picture for each scored image into `folder`, if one is given."""
    if folder is None:
        yield from results
        return
    from serving.overlays import write_overlay

    folder.mkdir(parents=True, exist_ok=True)
    for number, result in enumerate(results):
        if result.score is not None:
            write_overlay(result.path, result.score, folder / f"{number:06d}-{_shortened(result.path.stem)}.png")
        yield result


def _shortened(stem: str) -> str:
    """The start of a stem, short enough for the name of an overlay."""
    while len(os.fsencode(stem)) > MAX_STEM_BYTES:
        stem = stem[:-1]
    return stem


def _write_results(results: Iterable["FileScore"], form: str) -> int:
    """Write every result as it arrives; returns the number of files that could not be scored."""
    from serving.scoring import ROW_COLUMNS, row_of

    table = csv.DictWriter(sys.stdout, ROW_COLUMNS, lineterminator="\n")
    if form == "csv":
        table.writeheader()
    elif form == "table":
        click.echo(f"{'verdict':8} {'score':>10} {'threshold':>10}  path")
    failed = 0
    for result in results:
        failed += result.score is None
        row = row_of(result)
        if form == "csv":
            table.writerow(row)
        else:
            click.echo(json.dumps(row) if form == "jsonl" else _line(row))
    return failed


def _line(row: dict[str, Any]) -> str:
    score, threshold = ("-" if row[name] is None else f"{row[name]:.6f}" for name in ("score", "threshold"))
    problem = f"  ({row['problem']})" if row["problem"] else ""
    return f"{row['verdict']:8} {score:>10} {threshold:>10}  {row['path']}{problem}"
