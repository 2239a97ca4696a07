"""`autoencoder serve`: serves pushed models on this machine."""

import math
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import FOLDER, PATH, RUNS
from pipeline.errors import Command
from runtime.errors import UsageError
from serving.server.settings import MIB, ServerSettings

if TYPE_CHECKING:  # `--help` must not wait for what these import
    from contextlib import AbstractContextManager

    from starlette.types import ASGIApp

    from serving.server.access import Tokens
    from serving.server.kept_images import KeptImages
    from serving.server.run import Review, ServerAddress
    from serving.server.served_models import ServedModels

REAL_SERVER = "tensorflow_model_server"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 (the only one that TensorFlow Serving listens on)
MAX_BODY_MB = ServerSettings.max_body_bytes // MIB
_LONGEST_POLL_S = 24 * 3600


@click.command(cls=Command)
@click.argument("folder", required=False, type=PATH)
@click.option(
    "--model_base_path", type=PATH, help="Like FOLDER, but if it has no version yet, the server waits for one."
)
@click.option("--model_name", default=ServerSettings.model_name, help="Name in requests.")
@click.option(
    "--model_config_file",
    type=PATH,
    help="File that lists several models, in TensorFlow Serving's text format, instead of FOLDER.",
)
@click.option(
    "--model_config_file_poll_wait_seconds",
    type=click.FloatRange(0, _LONGEST_POLL_S),
    default=ServerSettings.model_config_poll_s,
    help="Interval between checks for a change of that file; 0: none.",
)
@click.option(
    "--max-loaded-mb",
    type=click.IntRange(1),
    help="Memory for the models of that file: the least recently used are unloaded, until they are requested.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=ServerSettings.grpc_port, help="Port for gRPC; 0: off.")
@click.option(
    "--rest_api_port",
    "--rest-port",
    type=click.IntRange(0, 65535),
    default=ServerSettings.rest_port,
    help="Port for REST, metrics and the web page; 0: off.",
)
@click.option("--host", default=ServerSettings.host, help=f"Address to listen on; {EVERY_ADDRESS}: all.")
@click.option(
    "--rest_api_timeout_in_ms",
    type=click.IntRange(1),
    default=int(ServerSettings.request_timeout_s * 1000),
    help="Time after which a request is answered with status 504.",
)
@click.option(
    "--file_system_poll_wait_seconds",
    type=click.FloatRange(0.1, _LONGEST_POLL_S),
    default=ServerSettings.poll_interval_s,
    help="Interval between checks for a new version.",
)
@click.option(
    "--enable_batching/--no-enable_batching",
    default=ServerSettings.enable_batching,
    help="Process waiting requests together.",
)
@click.option(
    "--enable_model_warmup/--no-enable_model_warmup",
    default=ServerSettings.enable_model_warmup,
    help="Replay the model's warm-up requests before serving it.",
)
@click.option("--max-body-mb", type=click.IntRange(1), default=MAX_BODY_MB, help="Largest request.")
@click.option(
    "--record-scores",
    type=FOLDER,
    help="Folder in which to record the distribution of scores, for `autoencoder drift`.",
)
@click.option(
    "--keep-images",
    type=FOLDER,
    help="Folder in which to keep a sample of the images, for review in the page; only you can read it.",
)
@click.option(
    "--keep-rate",
    type=click.FloatRange(0, 1, min_open=True),
    default=ServerSettings.keep_rate,
    help="Share of the images to keep.",
)
@click.option(
    "--keep-at-most",
    type=click.IntRange(1),
    default=ServerSettings.keep_at_most,
    help="Number of images to keep; then each new one replaces the oldest.",
)
@click.option(
    "--keep-mb",
    type=click.IntRange(1),
    default=ServerSettings.keep_max_bytes // MIB,
    help="Megabytes of images to keep.",
)
@click.option("--tls-cert", type=PATH, help="PEM file with the certificate chain, for TLS.")
@click.option("--tls-key", type=PATH, help="PEM file with the certificate's key.")
@click.option(
    "--token-file",
    type=PATH,
    help="File with the accepted bearer tokens, one per line; both protocols.",
)
@click.option("--own", is_flag=True, help=f"Use this project's server even if {REAL_SERVER} is on PATH.")
def serve(
    folder: Path | None,
    model_base_path: Path | None,
    model_config_file: Path | None,
    max_loaded_mb: int | None,
    host: str,
    max_body_mb: int,
    record_scores: Path | None,
    keep_images: Path | None,
    keep_rate: float,
    keep_at_most: int,
    keep_mb: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
    own: bool,
    **flags: Any,
) -> None:
    """Serve pushed models with TensorFlow Serving's protocol.

    The server runs until Ctrl-C. FOLDER is a run's folder or the folder that holds its versions; by default, that
    of the run below runs/ that was pushed last. New versions are picked up while the server runs.

    With --model_config_file, it serves several models, each under its own name; a change of the file takes effect
    while the server runs.

    With --keep-images, the page has a second tab, in which you decide what the kept images and the suspects of the run
    show. It needs one of the server's tokens, or the one in the address that the server prints.

    With --tls-cert, --tls-key and --token-file, it can listen beyond this machine. The files are read again when they
    change.

    With --host 0.0.0.0, tensorflow_model_server is used instead if it is on PATH: it listens on every address,
    and supports neither TLS, tokens, --record-scores, --keep-images, --max-body-mb nor --max-loaded-mb.
    """
    if model_config_file and (folder or model_base_path):
        raise UsageError("--model_config_file lists all models: give either it or a folder")
    served = model_config_file or _base(folder, model_base_path)
    if not own and (program := shutil.which(REAL_SERVER)):
        is_protected = bool(tls_cert or tls_key or token_file)
        obstacle = _obstacle_to_real_server(
            host, max_body_mb, record_scores, keep_images, max_loaded_mb=max_loaded_mb, is_protected=is_protected
        )
        if not obstacle:
            _become_real_server(program, served, flags, has_several_models=model_config_file is not None)
        click.echo(f"{REAL_SERVER} is on PATH but {obstacle}", err=True)
    settings = ServerSettings(
        model_base_path=None if model_config_file else served,
        model_name=flags["model_name"],
        model_config_file=model_config_file,
        model_config_poll_s=flags["model_config_file_poll_wait_seconds"] or None,
        max_loaded_bytes=max_loaded_mb * MIB if max_loaded_mb else None,
        host=host,
        grpc_port=flags["port"] or None,
        rest_port=flags["rest_api_port"] or None,
        request_timeout_s=flags["rest_api_timeout_in_ms"] / 1000,
        poll_interval_s=flags["file_system_poll_wait_seconds"],
        enable_batching=flags["enable_batching"],
        enable_model_warmup=flags["enable_model_warmup"],
        max_body_bytes=max_body_mb * MIB,
        record_scores=record_scores,
        keep_images=keep_images,
        keep_rate=keep_rate,
        keep_at_most=keep_at_most,
        keep_max_bytes=keep_mb * MIB,
        tls_cert=tls_cert,
        tls_key=tls_key,
        token_file=token_file,
    )
    _serve(settings)


def _serve(settings: ServerSettings) -> None:
    quieten_tensorflow()
    from serving.server.logs import log_to, redirect_standard_error

    if not sys.stderr.isatty():
        redirect_standard_error()
    from serving.server.access import new_token
    from serving.server.run import serve_until_signalled

    log_to(sys.stderr)
    token = new_token() if settings.keep_images and not settings.token_file else ""
    scheme = "https" if settings.tls_cert else "http"

    def tell(address: "ServerAddress") -> None:
        if address.rest_port is None:
            return
        page = f"{scheme}://{address.host}:{address.rest_port}/"
        if sys.stderr.isatty():
            click.echo(f"Open {page} to try it; Ctrl-C stops it.", err=True)
        if token:
            click.echo(f"To review the images that it keeps, open {page}#token={token}")

    serve_until_signalled(settings, _review(token) if settings.keep_images else None, tell)


def _review(token: str) -> "Review":
    """The tab with the kept images, for the holders of `token`, or of the server's tokens if it has some."""
    from pipeline.local.reviewable import folder_of_run, reviewable_run_in
    from serving.reviewing.app import Access, local_access
    from serving.reviewing.tab import Runs, review_tab

    def tab(models: "ServedModels", kept: "KeptImages", tokens: "Tokens | None") -> "AbstractContextManager[ASGIApp]":
        hint = "enter the token in the address that `autoencoder serve` printed"
        access = Access(check=tokens.check, is_local=False) if tokens else local_access(token, hint=hint)
        return review_tab(models, kept, access, Runs(folder_of=folder_of_run, read=reviewable_run_in))

    return tab


def quieten_tensorflow() -> None:
    """Hide warnings that users can do nothing about; real failures are raised in Python as well."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a missing GPU is not an error
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")


def _base(folder: Path | None, model_base_path: Path | None) -> Path:
    from serving.model.versions import NoModelError, base_folder, holds_saved_model, newest_base_folder

    if folder is not None and model_base_path is not None:
        raise UsageError("FOLDER and --model_base_path mean the same: give only one of them")
    if model_base_path is None:
        return base_folder(folder) if folder is not None else newest_base_folder(RUNS)
    try:
        return base_folder(model_base_path)
    except NoModelError:
        if not model_base_path.is_dir() or holds_saved_model(model_base_path):
            raise
        return model_base_path  # as TensorFlow Serving does: a server may start before the first push


def _obstacle_to_real_server(
    host: str,
    max_body_mb: int,
    record_scores: Path | None,
    keep_images: Path | None,
    *,
    max_loaded_mb: int | None,
    is_protected: bool,
) -> str:
    """Which option TensorFlow Serving does not support, and what to do; empty if it supports all of them."""
    if is_protected:
        return "supports neither tokens nor TLS for REST; to use it: omit --tls-cert, --tls-key and --token-file"
    if host != EVERY_ADDRESS:
        return f"listens on every address; to use it: --host {EVERY_ADDRESS}"
    if record_scores is not None:
        return "cannot record scores; to use it: omit --record-scores"
    if keep_images is not None:
        return "cannot keep images; to use it: omit --keep-images"
    if max_body_mb != MAX_BODY_MB:
        return "cannot limit the size of requests; to use it: omit --max-body-mb"
    if max_loaded_mb is not None:
        return "cannot unload models in use; to use it: omit --max-loaded-mb"
    return ""


def _become_real_server(program: str, served: Path, flags: dict[str, Any], *, has_several_models: bool) -> None:
    """Replace this process with TensorFlow Serving, which has the same flags; its intervals are in whole seconds.

    `served` is the folder of versions, or the file that lists several models.
    """
    given = dict(flags)
    for name in ("file_system_poll_wait_seconds", "model_config_file_poll_wait_seconds"):
        given[name] = math.ceil(flags[name])
    if has_several_models:
        # Else it would refuse a file with labels, since no version is loaded when it starts.
        given |= {"model_config_file": served.resolve(), "allow_version_labels_for_unavailable_models": True}
        del given["model_name"]
    else:
        given["model_base_path"] = served.resolve()
        del given["model_config_file_poll_wait_seconds"]
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    os.execv(program, [program, *(f"--{name}={value}" for name, value in values.items())])
