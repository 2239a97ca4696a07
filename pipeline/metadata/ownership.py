"""Reserves a pipeline's name for one folder, in a metadata store that several machines share."""

import contextlib
import shlex
import socket
import uuid
from pathlib import Path
from typing import Any

from ml_metadata import errors
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata

from pipeline.metadata.run_lock import ENDED, state_of_run
from pipeline.metadata.store import MetadataStoreError

IDENTITY_FILE = ".identity"
_TYPE = "pipeline_folder"
_IDENTITY, _PLACE = "identity", "place"


def claim(connection: Any, pipeline: str, folder: Path) -> None:
    """Record in the store that `pipeline` runs in `folder`, which its IDENTITY_FILE identifies.

    A run treats another run's unfinished work as abandoned, and files that it cannot find as removed: runs of the same
    name in two folders would undo each other's work. Raises MetadataStoreError if the name belongs to another folder,
    unless that folder was on this machine and no longer exists.
    """
    identity = _identity_of(folder)
    place = f"{socket.gethostname()}:{folder}"
    with metadata.Metadata(connection) as handle:
        store = handle.store
        type_id = store.put_context_type(mlmd.ContextType(name=_TYPE), can_add_fields=True)
        context = store.get_context_by_type_and_name(_TYPE, pipeline)
        if context is None:
            with contextlib.suppress(errors.AlreadyExistsError):  # another run was faster
                _put(store, mlmd.Context(type_id=type_id, name=pipeline), identity, place)
            context = store.get_context_by_type_and_name(_TYPE, pipeline)
        owner, where = (context.custom_properties[name].string_value for name in (_IDENTITY, _PLACE))
        if owner != identity and not _is_gone(owner, where):
            raise MetadataStoreError(
                f"metadata: according to this store, {pipeline} runs in {where}; runs there and in {folder} would undo "
                "each other's work. Choose another name (--set name=...), or run there; if that folder no longer "
                f"exists: echo {owner} > {shlex.quote(str(folder / IDENTITY_FILE))}"
            )
        if (owner, where) != (identity, place):
            _put(store, context, identity, place)


def state_of_latest_run(store: Any, pipeline: str, started_ms: int) -> str:
    """As `state_of_run`, in the folder that the store records for the pipeline."""
    context = store.get_context_by_type_and_name(_TYPE, pipeline)
    if context is None:
        return ENDED
    host, _, path = context.custom_properties[_PLACE].string_value.partition(":")
    if host == socket.gethostname() or _read(Path(path)) == context.custom_properties[_IDENTITY].string_value:
        return state_of_run(Path(path), started_ms)
    return str(host)


def _identity_of(folder: Path) -> str:
    if not _read(folder):
        (folder / IDENTITY_FILE).write_text(f"{uuid.uuid4().hex}\n", encoding="ascii")
    return _read(folder)


def _read(folder: Path) -> str:
    file = folder / IDENTITY_FILE
    return file.read_text(encoding="ascii").strip() if file.exists() else ""


def _put(store: Any, context: Any, identity: str, place: str) -> None:
    context.custom_properties[_IDENTITY].string_value = identity
    context.custom_properties[_PLACE].string_value = place
    store.put_contexts([context])


def _is_gone(owner: str, where: str) -> bool:
    """Whether the owner's folder was on this machine and no longer exists."""
    host, _, path = where.partition(":")
    return host == socket.gethostname() and _read(Path(path)) != owner
