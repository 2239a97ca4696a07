"""`autoencoder serve`: a pushed model on this machine."""

import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schema.signatures import DEFAULT_GRPC_PORT, DEFAULT_MODEL_NAME, DEFAULT_REST_PORT

if TYPE_CHECKING:  # `--help` must not wait for what these import
    from serving.server.settings import ServerSettings

RUNS = Path("runs")
REAL_SERVER = "tensorflow_model_server"
MIB = 1024 * 1024
LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 (the only one that TensorFlow Serving listens on)
MAX_BODY_MB = 64


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
@click.option(
    "--host", default=LOOPBACK, show_default=True, help=f"Address to listen on; {EVERY_ADDRESS} is every one."
)
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
@click.option("--max-body-mb", type=click.IntRange(1), default=MAX_BODY_MB, show_default=True, help="Largest request.")
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

    With --host 0.0.0.0, tensorflow_model_server is run instead where it is on PATH: it listens on every address,
    and knows neither --record-scores nor --max-body-mb.
    """
    base = _base(folder, model_base_path)
    if not own and (program := shutil.which(REAL_SERVER)):
        obstacle = _obstacle_to_real_server(host, max_body_mb, record_scores)
        if not obstacle:
            _become_real_server(program, base, flags)
        click.echo(f"{REAL_SERVER} is on PATH but {obstacle}", err=True)
    from serving.server.settings import ServerSettings

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
    quieten_tensorflow()
    from serving.server.logs import log_to
    from serving.server.run import serve_until_signalled

    log_to(sys.stderr)
    if settings.rest_port and sys.stderr.isatty():
        click.echo(f"Open http://{settings.host}:{settings.rest_port}/ to try it; Ctrl-C stops it.", err=True)
    try:
        serve_until_signalled(settings)
    except OSError as error:
        raise click.ClickException(str(error)) from None


def quieten_tensorflow() -> None:
    """Keep what users can do nothing about off the terminal; what really fails is raised in Python, too."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a machine without a GPU is no error
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")


def _base(folder: Path | None, model_base_path: Path | None) -> Path:
    from serving.model.versions import base_folder, newest_base_folder

    if folder is not None and model_base_path is not None:
        raise click.UsageError("FOLDER and --model_base_path are the same thing: give one of them")
    try:
        given = folder or model_base_path
        return base_folder(given) if given is not None else newest_base_folder(RUNS)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from None


def _obstacle_to_real_server(host: str, max_body_mb: int, record_scores: Path | None) -> str:
    """What was asked for that TensorFlow Serving cannot do, and how to ask for it; empty where it can do it all."""
    if host != EVERY_ADDRESS:
        return f"listens on every address; to use it: --host {EVERY_ADDRESS}"
    if record_scores is not None:
        return "records no scores; to use it: leave --record-scores out"
    if max_body_mb != MAX_BODY_MB:
        return "limits no request's size; to use it: leave --max-body-mb out"
    return ""


def _become_real_server(program: str, base: Path, flags: dict[str, Any]) -> None:
    """Replace this process by TensorFlow Serving, whose flags ours are named after.

    It waits whole seconds between two looks for a version.
    """
    poll_wait_s = max(1, round(flags["file_system_poll_wait_seconds"]))
    given = {**flags, "model_base_path": base.resolve(), "file_system_poll_wait_seconds": poll_wait_s}
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    os.execv(program, [program, *(f"--{name}={value}" for name, value in values.items())])
