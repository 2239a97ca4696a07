"""`autoencoder watch`: scores the images that arrive in a folder, and reports anomalies."""

import sys
from pathlib import Path

import click

from pipeline.commands.options import FOLDER, PATH, RUNS
from pipeline.commands.serve import quieten_tensorflow
from pipeline.errors import Command
from runtime.errors import UsageError

SINKS_VARIABLE = "AUTOENCODER_ON_ANOMALY"
STATES = Path("watch")
"""The folder of all states, unless --state is given."""


@click.command(cls=Command)
@click.argument("place", metavar="FOLDER")
@click.option(
    "--model", type=FOLDER, help="A run's folder, a serving folder or a SavedModel; by default the last pushed."
)
@click.option(
    "--on-anomaly",
    "sinks",
    multiple=True,
    metavar="RECEIVER",
    envvar=SINKS_VARIABLE,
    show_envvar=True,
    help="webhook:URL, mqtt://HOST/TOPIC, folder:DIR, or a command that reads JSON (repeatable).",
)
@click.option(
    "--state", type=PATH, help=f"File with what is done; results go beside it.  [default: {STATES}/NAME.sqlite]"
)
@click.option(
    "--poll",
    "poll_s",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="List the folder at this interval instead of waiting for the kernel's notifications.",
)
@click.option("--rotate-mb", type=click.IntRange(1), default=64, help="Start new files of results at this size.")
@click.option("--queue-mb", type=click.IntRange(1), default=256, help="Waiting events to keep for each receiver.")
@click.option("--record-scores", type=FOLDER, help="Record the distribution of scores here, for `autoencoder drift`.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Port for Prometheus metrics on 127.0.0.1.")
def watch(
    place: str,
    model: Path | None,
    sinks: tuple[str, ...],
    state: Path | None,
    poll_s: float | None,
    rotate_mb: int,
    queue_mb: int,
    record_scores: Path | None,
    metrics_port: int | None,
) -> None:
    """Score every new image in FOLDER once, until Ctrl-C.

    FOLDER is a folder or an address such as s3://bucket/parts. Images that are there already are scored first, then
    each new one as soon as it is complete. Results are appended to JSON Lines and CSV files beside the state file.
    Each receiver gets every anomaly, with its regions and a picture; while a receiver is unavailable, they wait on
    disk. Ctrl-C finishes what is complete; pressed again, it ends the watch immediately, and the next start continues.
    """
    from runtime.object_store import as_path
    from serving.watching.settings import MIB, WatchSettings
    from serving.watching.sinks import sink_of

    watched = as_path(place)
    settings = WatchSettings(
        place=watched,
        model=_model(model),
        state=(state or STATES / f"{watched.name or 'root'}.sqlite").absolute(),
        sinks=tuple(sink_of(text) for text in dict.fromkeys(sinks)),
        poll_s=poll_s,
        max_results_bytes=rotate_mb * MIB,
        max_queued_bytes=queue_mb * MIB,
        record_scores=record_scores,
        metrics_port=metrics_port,
    )
    quieten_tensorflow()
    from runtime.imports import imported_for_good
    from runtime.signals import stop_on_signals
    from serving.server.logs import log_to

    log_to(sys.stderr)
    with imported_for_good():
        from serving.watching.watcher import watch_until_stopped

    with stop_on_signals() as stop:
        watch_until_stopped(settings, stop)


def _model(folder: Path | None) -> Path:
    from serving.model.versions import newest_base_folder, saved_model_folder

    if folder is not None and not folder.is_dir():
        raise UsageError(f"--model {folder}: no such folder")
    base = folder or newest_base_folder(RUNS)
    saved_model_folder(base)
    return base
