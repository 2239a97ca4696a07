"""Runs the pipeline on this machine, from configuration to verdict."""

import contextlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from components.sources.registry import plan_source
from components.sources.reviewed import AUTO
from pipeline.configuration.configuration import Configuration, ConfigurationError
from pipeline.errors import interrupt_on_signals, message_of
from pipeline.local.product import record_product, require_same_product
from pipeline.local.product_index import update_if_listed
from pipeline.metadata.run_lock import run_lock
from pipeline.metadata.store import connection_of
from pipeline.terminal import ComponentProgress, output_to_log, plain_console, print_summary
from runtime import reader_processes
from runtime.beam_lookups import remember_lookups
from runtime.errors import DONE, FAILED, REFUSED
from runtime.imports import imported_for_good
from runtime.keras_flavour import use_keras_2
from runtime.places import pattern_problem
from runtime.spare_process import prepare
from schema.artifacts import PICTURE_FILE, REPORT_FILE, SUSPECTS_FILE, THUMBNAILS_FILE
from schema.reviewed import MANIFEST_FILE, REVIEW_FOLDER
from serving.model.versions import RUN_SUBFOLDER, version_folders

if TYPE_CHECKING:  # a mistake in the configuration must not wait for this import
    from pipeline.local.runner import ComponentOutcome

LOG_FILE = "run.log"
TROUBLESHOOTING = "docs/troubleshooting.md"
_CHECK = "serving.model.smoke_check"
"""The Pusher runs this program; naming it here does not import TensorFlow."""
_SOURCES_OF_FILES = ("folder", "csv")


Document = dict[str, Any]


def run(configuration: Configuration, *, as_json: bool, same_product: bool = False) -> int:
    """Run the pipeline and return the exit code; raises a UserError if nothing was started.

    `same_product`: the images show what those of earlier runs show, although their location is another one.
    """
    interrupt_on_signals()
    document = outcome_of(configuration, as_json=as_json, same_product=same_product)
    update_if_listed(configuration, document)
    if as_json:
        print(json.dumps(document, indent=2))
    return exit_code(document)


def outcome_of(configuration: Configuration, *, as_json: bool, same_product: bool) -> Document:
    """Run the pipeline, print its progress and outcome, and return the document of `--json`.

    `as_json` keeps standard output free for that document. Raises a UserError if nothing was started.
    """
    started = time.monotonic()
    _require_reach(configuration)
    folder = _writable_folder(configuration)
    with run_lock(folder, plain_console(stderr=True).print):
        configuration = _with_reviewed(configuration, folder)
        plan = plan_source(configuration.data, configuration.image)
        if not same_product:
            require_same_product(configuration, plan.fingerprint, folder)
        with output_to_log(folder / LOG_FILE) as (stdout, stderr):
            console = plain_console(stderr if as_json else stdout)
            log = folder / LOG_FILE
            excluded = f", {len(plan.excluded):,} of them excluded" if plan.excluded else ""
            reviewed = f", {plan.reviewed.image_count:,} reviewed images" if plan.reviewed else ""
            console.print(f"{configuration.name}: {plan.image_count:,} images{excluded}{reviewed}, log in {log}")
            if plan.skipped:
                console.print(f"skipped {plan.skipped} (not a supported image format)")
            if plan.warning:
                console.print(f"warning: {plan.warning}")
            document, error = _run(configuration, plan.fingerprint, folder, console)
            document["seconds"] = round(time.monotonic() - started, 2)
            if error:
                _explain(document, error, console)
            elif not as_json:
                print_summary(console, document)
            return document


def exit_code(document: Document) -> int:
    """The exit code that states the outcome of a run."""
    if document["error"]:
        return FAILED
    return DONE if document["blessed"] else REFUSED


def _with_reviewed(configuration: Configuration, folder: Path) -> Configuration:
    """The configuration with the manifest that `autoencoder review` keeps in the run's folder, or with none."""
    if configuration.data.reviewed != AUTO:
        return configuration
    manifest = folder / REVIEW_FOLDER / MANIFEST_FILE
    has_decisions = manifest.exists() and len(manifest.read_text(encoding="utf-8").splitlines()) > 1
    data = configuration.data.model_copy(update={"reviewed": str(manifest) if has_decisions else None})
    return configuration.model_copy(update={"data": data})


def _run(
    configuration: Configuration, data_fingerprint: str, folder: Path, console: Console
) -> tuple[Document, BaseException | None]:
    """The outcome, and the error of the component that failed, if one did."""
    use_keras_2()
    waiting = console.status("loading TensorFlow Extended") if console.is_terminal else contextlib.nullcontext()
    with waiting, imported_for_good():
        if prepare(_CHECK) and configuration.data.source in _SOURCES_OF_FILES:
            reader_processes.prepare()
        from pipeline.graph import create_pipeline
        from pipeline.local.runner import run_pipeline
        from pipeline.metadata import history
        from pipeline.metadata.ownership import claim
        from runtime import tfx_filesystem

    remember_lookups()
    tfx_filesystem.register(os.environ)  # for `push.destination: s3://...`
    connection = connection_of(configuration.metadata, folder, tell=console.print)
    if configuration.metadata.backend != "sqlite":
        claim(connection, configuration.name, folder)
    destination = configuration.push.destination or str(folder / RUN_SUBFOLDER)
    pipeline = create_pipeline(
        configuration,
        data_fingerprint=data_fingerprint,
        pipeline_root=str(folder / "artifacts"),
        push_destination=destination,
    )
    with _reported(ComponentProgress(console, history.last_durations(connection, configuration.name))) as progress:
        outcomes = run_pipeline(pipeline, connection, progress.listen)
    _print_changes(outcomes, console)
    failed = next((outcome for outcome in outcomes if outcome.error), None)
    verdict = history.verdict_of_latest(connection, configuration.name) if failed is None else history.no_verdict()
    if failed is None:
        record_product(configuration, data_fingerprint, folder)
    model_run, report = verdict.pop("model_run"), verdict.pop("report")
    if report:
        for name in (REPORT_FILE, SUSPECTS_FILE, THUMBNAILS_FILE):
            shutil.copyfile(Path(report).with_name(name), folder / name)
    document: Document = {
        "run": str(folder),
        **verdict,
        "components": [{"name": o.name, "state": o.state, "seconds": round(o.seconds, 2)} for o in outcomes],
        "error": f"{failed.name}: {message_of(failed.error, folder)}" if failed and failed.error else None,
        "paths": _paths(folder, destination, model_run, report),
    }
    return document, failed.error if failed else None


def _require_reach(configuration: Configuration) -> None:
    beam = configuration.beam
    if any("DataflowRunner" in argument for given in (beam.args, *beam.components.values()) for argument in given):
        raise ConfigurationError(
            f"beam: Dataflow's workers cannot reach the folder {configuration.root!r}: compile the pipeline for "
            "Kubeflow (autoencoder compile CONFIG --root gs://...), or run it on Flink or Spark"
        )


def _print_changes(outcomes: "list[ComponentOutcome]", console: Console) -> None:
    """Print in one line why components ran although they had finished before."""
    changed: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.changed:
            changed.setdefault(outcome.changed, []).append(outcome.name)
    if changed:
        causes = "; ".join(f"{cause} ({', '.join(names)})" for cause, names in changed.items())
        console.print(f"\nchanged since the last run: {causes}")


def _explain(document: Document, error: BaseException, console: Console) -> None:
    """Log the error that ended a run, and print where to read on."""
    logging.getLogger(__name__).error("the run failed", exc_info=error)
    component, _, message = document["error"].partition(": ")
    console.print(f"\n{component} failed: {message}", style="red")
    console.print(f"details in {Path(document['run']) / LOG_FILE}; the next run continues here")
    console.print(f"known causes and remedies: {TROUBLESHOOTING}#{component.lower()}")


def _paths(folder: Path, destination: str, model_run: str | None, report: str | None) -> dict[str, str]:
    paths = {"report": str(folder / REPORT_FILE)} if report else {}
    if version_folders(Path(destination)):  # pushed by this run or an earlier one
        served = folder if Path(destination) == folder / RUN_SUBFOLDER else destination
        paths["serve it"] = f"{Path(sys.executable).parent / 'autoencoder'} serve {served}"
    paths["artifacts"] = str(folder / "artifacts")
    if model_run:
        paths["pictures"] = f"{model_run}/{PICTURE_FILE}"
        paths["tensorboard"] = f"tensorboard --logdir {model_run}"
    return paths


def _writable_folder(configuration: Configuration) -> Path:
    folder = Path(configuration.root) / configuration.name
    try:
        folder = folder.expanduser().absolute()
        if problem := pattern_problem(str(folder)):
            raise ConfigurationError(f"root: {folder}: {problem} with --set root=...")
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.touch()
        probe.unlink()
    except (OSError, RuntimeError, ValueError) as error:  # the latter two: unknown user in ~user, invalid file name
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"root: {folder} is not writable ({reason}); choose another folder with --set root=..."
        ) from None
    return folder


@contextlib.contextmanager
def _reported(progress: ComponentProgress) -> Iterator[ComponentProgress]:
    """Send log records to the log file, and those with progress to the terminal as well."""
    from absl import logging as absl_logging

    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.INFO)
    logger = logging.getLogger()
    logger.addHandler(progress)
    logger.setLevel(logging.INFO)
    try:
        yield progress
    finally:
        progress.abort()
        logger.removeHandler(progress)
