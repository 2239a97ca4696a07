"""`autoencoder serve` and `autoencoder score`: a pushed model on this machine, scores for image files."""

import csv
import json
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schema.signatures import DEFAULT_GRPC_PORT, DEFAULT_MODEL_NAME, DEFAULT_REST_PORT

if TYPE_CHECKING:  # `--help` must not wait for what these import
    from serving.scoring import FileScore, Scorer
    from serving.settings import ServerSettings

RUNS = Path("runs")
REAL_SERVER = "tensorflow_model_server"
MIB = 1024 * 1024
LOOPBACK = "127.0.0.1"


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--model_base_path", "--model-base-path", type=click.Path(path_type=Path), help="The same as FOLDER.")
@click.option("--model_name", "--model-name", default=DEFAULT_MODEL_NAME, show_default=True, help="Name in requests.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_GRPC_PORT,
    show_default=True,
    help="gRPC; 0: off.",
)
@click.option(
    "--rest_api_port",
    "--rest-port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_REST_PORT,
    show_default=True,
    help="REST, metrics and the web page; 0: off.",
)
@click.option("--host", default=LOOPBACK, show_default=True, help="Address to listen on; 0.0.0.0 is every one.")
@click.option(
    "--rest_api_timeout_in_ms",
    type=click.IntRange(1),
    default=30_000,
    show_default=True,
    help="Answer 504 after so long.",
)
@click.option(
    "--file_system_poll_wait_seconds",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    help="How often to look for a new version.",
)
@click.option(
    "--enable_batching/--no-enable_batching",
    default=True,
    show_default=True,
    help="Answer requests that wait for the model together.",
)
@click.option(
    "--enable_model_warmup/--no-enable_model_warmup",
    default=True,
    show_default=True,
    help="Replay the model's warm-up requests before it is served.",
)
@click.option("--max-body-mb", type=click.IntRange(1), default=64, show_default=True, help="Largest request.")
@click.option(
    "--record_scores",
    "--record-scores",
    type=click.Path(file_okay=False, path_type=Path),
    help="Count the scores answered in files in this folder, for `autoencoder drift`.",
)
@click.option("--own", is_flag=True, help=f"Use this project's server even where {REAL_SERVER} is on PATH.")
def serve(
    folder: Path | None,
    model_base_path: Path | None,
    host: str,
    max_body_mb: int,
    record_scores: Path | None,
    own: bool,
    **flags: Any,
) -> None:
    """Serve a pushed model in TensorFlow Serving's protocol until Ctrl-C.

    FOLDER is a run's folder or the folder that holds its versions; by default, that of the run below runs/
    that was pushed last. A new version is picked up while the server runs.
    """
    base = _base(folder, model_base_path)
    if not own and (program := shutil.which(REAL_SERVER)):
        _become_real_server(program, base, host, flags)
    from serving.settings import ServerSettings

    try:
        settings = ServerSettings(
            model_base_path=base,
            model_name=flags["model_name"],
            host=host,
            grpc_port=flags["port"] or None,
            rest_port=flags["rest_api_port"] or None,
            request_timeout_s=flags["rest_api_timeout_in_ms"] / 1000,
            poll_interval_s=flags["file_system_poll_wait_seconds"],
            enable_batching=flags["enable_batching"],
            enable_model_warmup=flags["enable_model_warmup"],
            max_body_bytes=max_body_mb * MIB,
            record_scores=record_scores,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _serve(settings)


def _serve(settings: "ServerSettings") -> None:
    _quieten_tensorflow()
    from serving.logs import log_to
    from serving.server import serve_until_signalled

    log_to(sys.stderr)
    if settings.rest_port and sys.stderr.isatty():
        click.echo(f"Open http://{settings.host}:{settings.rest_port}/ to try it; Ctrl-C stops it.", err=True)
    try:
        serve_until_signalled(settings)
    except OSError as error:
        raise click.ClickException(str(error)) from None


def _quieten_tensorflow() -> None:
    """Keep what users can do nothing about off the terminal; what really fails is raised in Python, too."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a machine without a GPU is no error
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")


def _base(folder: Path | None, model_base_path: Path | None) -> Path:
    from serving.versions import base_folder, newest_base_folder

    if folder is not None and model_base_path is not None:
        raise click.UsageError("FOLDER and --model_base_path are the same thing: give one of them")
    try:
        given = folder or model_base_path
        return base_folder(given) if given is not None else newest_base_folder(RUNS)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from None


def _become_real_server(program: str, base: Path, host: str, flags: dict[str, Any]) -> None:
    """Replace this process by TensorFlow Serving, whose flags ours are named after.

    It has none for the address it listens on, and waits whole seconds between two looks for a version.
    """
    if host == LOOPBACK:
        click.echo(f"{program} listens on every address of this machine; --own listens on {host} only", err=True)
    poll_wait_s = max(1, round(flags["file_system_poll_wait_seconds"]))
    given = {**flags, "model_base_path": base.resolve(), "file_system_poll_wait_seconds": poll_wait_s}
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    os.execv(program, [program, *(f"--{name}={value}" for name, value in values.items())])


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A run's folder, a serving folder or a SavedModel; by default the last one pushed below runs/.",
)
@click.option("--server", help="Ask a server instead: http://host:8501 or grpc://host:8500.")
@click.option(
    "--model_name",
    "--model-name",
    default=DEFAULT_MODEL_NAME,
    show_default=True,
    help="The model's name on the server.",
)
@click.option("--format", "form", type=click.Choice(["table", "csv", "jsonl"]), default="table", show_default=True)
@click.option(
    "--overlays",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write image, reconstruction and heat map side by side into this folder.",
)
def score(
    images: tuple[str, ...],
    model: Path | None,
    server: str | None,
    model_name: str,
    form: str,
    overlays: Path | None,
) -> None:
    """Score image files: is each one like those the model was trained on?

    IMAGES are files, folders (searched below) or patterns such as 'parts/*.png'. Results go to standard
    output, one line a file; a file that cannot be scored is reported and skipped. Exit status 1 only where
    every file failed, or the server.
    """
    if model is not None and server is not None:
        raise click.UsageError("--model and --server exclude each other")
    from serving.errors import ServingError
    from serving.scoring import image_files, score_files

    try:
        paths = list(image_files(images))
        scorer = _scorer(model, server, model_name, with_maps=overlays is not None)
        results = score_files(paths, scorer)
        failed = _write_results(_with_overlays(_with_progress(results, len(paths)), overlays), form)
    except (FileNotFoundError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    except ServingError as error:
        raise click.ClickException(f"{error.status.name}: {error.message}") from None
    if failed:
        click.echo(f"{failed} of {len(paths)} files could not be scored", err=True)
    if failed == len(paths):
        sys.exit(1)


def _scorer(model: Path | None, server: str | None, model_name: str, *, with_maps: bool) -> "Scorer":
    from serving.scoring import local_scorer, server_scorer
    from serving.versions import newest_base_folder, saved_model_folder

    if server is not None:
        return server_scorer(server, model_name=model_name, with_maps=with_maps)
    _quieten_tensorflow()
    return local_scorer(saved_model_folder(model or newest_base_folder(RUNS)), with_maps=with_maps)


def _with_progress(results: Iterable["FileScore"], total: int) -> Iterator["FileScore"]:
    """The same results; a bar on standard error while they come, where that is a terminal."""
    if not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(results, "Scoring", total=total, console=Console(stderr=True), transient=True)


def _with_overlays(results: Iterable["FileScore"], folder: Path | None) -> Iterator["FileScore"]:
    """The same results; a picture of each scored one is written into `folder`, where one is given."""
    if folder is None:
        yield from results
        return
    from serving.overlays import write_overlay

    folder.mkdir(parents=True, exist_ok=True)
    for number, result in enumerate(results):
        if result.score is not None:
            write_overlay(result.path, result.score, folder / f"{number:06d}-{result.path.stem}.png")
        yield result


COLUMNS = ("path", "verdict", "score", "threshold", "error", "problem")


def _write_results(results: Iterable["FileScore"], form: str) -> int:
    """Write every result as it comes; returns how many could not be scored."""
    write = {"table": _table_writer, "csv": _csv_writer, "jsonl": _jsonl_writer}[form]()
    failed = 0
    for result in results:
        failed += result.score is None
        write(result)
    return failed


def _row(result: "FileScore") -> dict[str, str | float | None]:
    if result.score is None:
        values: list[str | float | None] = ["failed", None, None, None]
    else:
        numbers = (result.score.score, result.score.threshold, result.score.error)
        verdict = "anomaly" if result.score.is_anomaly else "normal"
        values = [verdict, *(value if math.isfinite(value) else None for value in numbers)]
    return dict(zip(COLUMNS, (str(result.path), *values, result.problem), strict=True))


def _table_writer() -> Callable[["FileScore"], None]:
    click.echo(f"{'verdict':8} {'score':>10} {'threshold':>10}  path")

    def write(result: "FileScore") -> None:
        row = _row(result)
        score_text, threshold_text = (
            "-" if row[name] is None else f"{row[name]:.6f}" for name in ("score", "threshold")
        )
        problem = f"  ({result.problem})" if result.problem else ""
        click.echo(f"{row['verdict']:8} {score_text:>10} {threshold_text:>10}  {result.path}{problem}")

    return write


def _csv_writer() -> Callable[["FileScore"], None]:
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    return lambda result: writer.writerow(_row(result))


def _jsonl_writer() -> Callable[["FileScore"], None]:
    return lambda result: click.echo(json.dumps(_row(result)))
