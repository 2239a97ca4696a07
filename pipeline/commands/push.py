"""`autoencoder push`: pushes a run's model again, lists the pushed versions, or rolls back to an earlier one."""

import dataclasses
import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import RUNS, json_option
from pipeline.errors import Command
from runtime.errors import UsageError, UserError
from runtime.imports import imported_for_good

if TYPE_CHECKING:  # `--help` must not wait for this import
    from components.pusher.destination import Version

Outcome = tuple[Any, str]
"""A JSON document, and the same as text."""


@click.command(cls=Command)
@click.argument("where", required=False)
@click.option("--rollback", is_flag=True, help="Return to the previous model, and withdraw the newest.")
@click.option("--list", "is_list", is_flag=True, help="List the versions, newest first.")
@click.option("--to", help="Push to this folder, s3:// or gs:// prefix instead of the run's destination.")
@click.option("--force", is_flag=True, help="Push the model even if a rollback has withdrawn it.")
@json_option
def push(where: str | None, rollback: bool, is_list: bool, to: str | None, force: bool, as_json: bool) -> None:
    """Push a model again, list the pushed versions, or roll back.

    Pushes a run's latest blessed model, or rolls back to the previous version. WHERE is a run's folder (by default
    the run below runs/ that was pushed last) or, for --list and --rollback, also a folder of versions: local, s3://
    or gs://. A rollback pushes the earlier version again under a new number, so servers pick it up like any other;
    later runs do not push the withdrawn model again.
    """
    if rollback + is_list + bool(to or force) > 1:
        raise UsageError("--rollback, --list and pushing (--to, --force) exclude each other")
    from pipeline.terminal import output_to_log

    with output_to_log(Path(os.devnull)):
        with imported_for_good():
            import tensorflow as tf

            from runtime import tfx_filesystem

        tfx_filesystem.register(os.environ)
        try:
            if rollback or is_list:
                base = _destination(where)
                document, text = _rolled_back(base) if rollback else _listed(base)
            else:
                document, text = _pushed(where, to, force=force)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(f"{to or where or RUNS}: cannot be read or written: {error}") from error
    click.echo(json.dumps(document, indent=2) if as_json else text)


def _listed(base: str) -> Outcome:
    from components.pusher.destination import versions, withdrawn

    found = versions(base)
    damaged = [f"withdrawn: {withdrawal.text}" for withdrawal in withdrawn(base).values() if withdrawal.is_damaged]
    lines = [
        f"{version.number:<17} model {version.digest[:12]}  {_state(version, found)}".rstrip() for version in found
    ]
    return [dataclasses.asdict(version) for version in found], "\n".join([f"versions in {base}:", *lines, *damaged])


def _state(version: "Version", found: list["Version"]) -> str:
    return ", ".join(["served"] * (version == found[0]) + ["withdrawn"] * version.is_withdrawn)


def _rolled_back(base: str) -> Outcome:
    from components.pusher.component import check_in_new_process
    from components.pusher.destination import rollback
    from serving.model import smoke_check

    done = rollback(base, check=partial(check_in_new_process, check_module=smoke_check.__name__))
    text = (
        f"version {done.left.number} is withdrawn; version {done.returned_to.number} was pushed again "
        f"as {done.pushed.path}"
    )
    return dataclasses.asdict(done), text


def _pushed(where: str | None, to: str | None, *, force: bool) -> Outcome:
    from components.pusher.component import push_checked
    from components.pusher.destination import PushError, digest_of, reinstate, withdrawn
    from pipeline.metadata.history import latest_blessed
    from serving.model import smoke_check

    run = Path(where) if where else Path(_destination(None)).parent
    blessed = latest_blessed(metadata_of(run), run.absolute().name)
    if blessed is None:
        raise PushError(f"{run}: none of its runs has a blessed model")
    model, analysis, statistics = blessed
    base = to or _destination(str(run))
    digest = digest_of(model)
    if (withdrawal := withdrawn(base).get(digest)) and not force:
        raise PushError(
            f"{run}: a rollback withdrew its latest blessed model ({withdrawal.text}); --force pushes it anyway"
        )
    pushed = push_checked(model, base, analysis=analysis, statistics=statistics, check_module=smoke_check.__name__)
    reinstate(base, digest)
    return dataclasses.asdict(pushed), f"{model} was pushed as {pushed.path}"


def _destination(where: str | None) -> str:
    """The folder of versions for `where`: itself, the one in a run's folder, or the run's destination."""
    from pipeline.metadata.history import latest_destination
    from pipeline.metadata.store import METADATA_FILE
    from serving.model.versions import RUN_SUBFOLDER, NoModelError, base_folder, newest_base_folder

    if where and "://" in where:
        return where
    try:
        return str(base_folder(Path(where)) if where else newest_base_folder(RUNS))
    except NoModelError:
        if where is None or not Path(where, METADATA_FILE).exists():
            raise
    return latest_destination(metadata_of(Path(where)), Path(where).absolute().name) or str(Path(where, RUN_SUBFOLDER))


def metadata_of(run: Path) -> Any:
    """The connection to ML Metadata of a run's folder; UsageError if it is none."""
    from pipeline.metadata.store import METADATA_FILE, MetadataSettings, connection_of

    if not (run / METADATA_FILE).exists():
        raise UsageError(f"{run}: is not a run's folder: it holds no {METADATA_FILE}")
    return connection_of(MetadataSettings(), run)
