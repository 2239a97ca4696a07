"""The `metadata:` section of the configuration, and the connection to the ML Metadata store that records all runs."""

import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from runtime.errors import UsageError
from runtime.settings import Section

METADATA_FILE = "metadata.sqlite"
_WORD = r"^[\w.@-]+$"
LOCK_TIMEOUT_S = 60.0
_DEFAULT_PORT = {"mysql": 3306, "postgresql": 5432}


class MetadataStoreError(UsageError):
    """The store cannot be used; the message says which store, why, and what to do."""


class MetadataSettings(Section):
    """The metadata store: a file beside the runs, or a database that several pipelines and machines share."""

    backend: Literal["sqlite", "mysql", "postgresql"] = "sqlite"
    """`sqlite`: `metadata.sqlite` in the run's folder; `mysql`: MySQL or MariaDB."""
    host: str | None = Field(None, pattern=_WORD)
    """The database server."""
    port: int | None = Field(None, ge=1, le=65535)
    """The server's port; null: 3306 for mysql, 5432 for postgresql."""
    database: str | None = Field(None, pattern=_WORD)
    """Name of the database."""
    user: str | None = Field(None, pattern=_WORD)
    """The database user."""
    password_variable: str = "MLMD_PASSWORD"
    """The environment variable with the password, which must not be in a configuration."""

    @model_validator(mode="after")
    def _check_server(self) -> "MetadataSettings":
        for name in ("host", "database", "user"):
            if self.backend == "sqlite" and getattr(self, name):
                raise ValueError(f"metadata.{name} has no meaning for backend 'sqlite'; use 'mysql' or 'postgresql'")
            if self.backend != "sqlite" and not getattr(self, name):
                raise ValueError(f"metadata.{name} is required for backend '{self.backend}'")
        return self


def require_run(settings: MetadataSettings, folder: Path) -> None:
    """Raise UsageError if there is no run in a pipeline's folder, instead of creating a store there."""
    if settings.backend == "sqlite" and not (folder / METADATA_FILE).exists():
        raise UsageError(f"{folder} holds no run; start one with: autoencoder run")


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def connection_of(settings: MetadataSettings, folder: Path, *, tell: Callable[[str], None] = _to_stderr) -> Any:
    """ML Metadata's ConnectionConfig; for a locked SQLite file in `folder`, passes a message to `tell` and waits.

    Raises MetadataStoreError if that file is damaged or stays locked, or if the server cannot be used or its password
    is not in the environment.
    """
    from ml_metadata.proto import metadata_store_pb2 as mlmd
    from tfx.orchestration import metadata

    if settings.backend == "sqlite":
        _require_usable(folder / METADATA_FILE, tell)
        return metadata.sqlite_metadata_connection_config(str(folder / METADATA_FILE))
    password = os.environ.get(settings.password_variable)
    if password is None:
        raise MetadataStoreError(
            f"metadata.password_variable: the environment has no {settings.password_variable}; "
            f"export it with the password of {settings.user} at {settings.host}"
        )
    port = settings.port or _DEFAULT_PORT[settings.backend]
    server = {"host": settings.host, "user": settings.user}
    if settings.backend == "mysql":
        config = mlmd.MySQLDatabaseConfig(port=port, database=settings.database, password=password, **server)
        return _answering(mlmd.ConnectionConfig(mysql=config), settings)
    quoted = "'" + password.replace("\\", "\\\\").replace("'", "\\'") + "'"  # ML Metadata does not quote it
    config = mlmd.PostgreSQLDatabaseConfig(
        port=str(port), dbname=settings.database, password=quoted, skip_db_creation=True, **server
    )
    return _answering(mlmd.ConnectionConfig(postgresql=config), settings)


def _answering(connection: Any, settings: MetadataSettings) -> Any:
    """The same connection; MetadataStoreError if the server cannot be reached or denies access."""
    from tfx.orchestration import metadata

    try:
        with metadata.Metadata(connection):
            return connection
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise MetadataStoreError(
            f"metadata: {settings.user} cannot use database {settings.database} of the {settings.backend} server at "
            f"{settings.host} ({reason}); start the server, or correct the section or {settings.password_variable}"
        ) from None


def _require_usable(file: Path, tell: Callable[[str], None]) -> None:
    """Wait until the SQLite file is unlocked; MetadataStoreError if it stays locked or is damaged.

    ML Metadata itself would notice damage only when it reads the damaged part.
    """
    if not file.exists():
        return
    try:
        check_file(file, wait_s=0.0)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise MetadataStoreError(f"{file}: {error}; run `autoencoder doctor` to examine it") from None
        tell(f"waiting for {holders(file)}, which holds {file} locked")
        try:
            check_file(file, wait_s=LOCK_TIMEOUT_S)
        except sqlite3.OperationalError:
            raise MetadataStoreError(
                f"{file} was locked by {holders(file)} for {LOCK_TIMEOUT_S:.0f} s: end it, then run again"
            ) from None
    except sqlite3.DatabaseError as error:
        raise MetadataStoreError(
            f"{file} is damaged ({error}): move it aside; the next run creates a new one and runs every component "
            "again. Pushed models are not affected"
        ) from None


def check_file(file: Path, *, wait_s: float) -> None:
    """Raise sqlite3's OperationalError if the file is locked or inaccessible, and other errors if it is damaged.

    SQLite first repairs what a killed run left half written, as whenever the file is opened.
    """
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=wait_s, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        [(verdict,), *_] = connection.execute("PRAGMA quick_check").fetchall()
        connection.execute("ROLLBACK")
    finally:
        connection.close()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def holders(file: Path) -> str:
    """The processes that hold locks on the file, according to Linux."""
    try:
        lines = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
        inode = str(file.stat().st_ino)
        numbers = dict.fromkeys(
            fields[4] for fields in lines if "->" not in fields and fields[5].split(":")[-1] == inode
        )
        own = [f"process {n} ({Path('/proc', n, 'comm').read_text().strip()})" for n in numbers if int(n) > 0]
    except OSError:
        own = []
    return " and ".join(own) or "another process"
