"""The `metadata:` section of the configuration: where ML Metadata keeps what every run did."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

METADATA_FILE = "metadata.sqlite"
_WORD = r"^[\w.@-]+$"
_DEFAULT_PORT = {"mysql": 3306, "postgresql": 5432}


class PasswordMissingError(Exception):
    """The environment holds no password; the message names the variable."""


class MetadataSettings(BaseModel):
    """A file beside the runs, or a database that several pipelines and machines share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["sqlite", "mysql", "postgresql"] = "sqlite"
    """`sqlite` is `metadata.sqlite` in the run's folder; `mysql` is MariaDB too."""
    host: str | None = Field(None, pattern=_WORD)
    port: int | None = Field(None, ge=1, le=65535)
    database: str | None = Field(None, pattern=_WORD)
    user: str | None = Field(None, pattern=_WORD)
    password_variable: str = "MLMD_PASSWORD"
    """The environment variable that holds the password, which no configuration may hold."""

    @model_validator(mode="after")
    def _check_server(self) -> "MetadataSettings":
        for name in ("host", "database", "user"):
            if self.backend == "sqlite" and getattr(self, name):
                raise ValueError(f"metadata.{name} has no meaning for backend 'sqlite'; use 'mysql' or 'postgresql'")
            if self.backend != "sqlite" and not getattr(self, name):
                raise ValueError(f"metadata.{name} is required for backend '{self.backend}'")
        return self


def connection_of(settings: MetadataSettings, folder: Path) -> Any:
    """ML Metadata's ConnectionConfig; the SQLite file lies in `folder`.

    Raises PasswordMissingError where a server is named and its password is not in the environment.
    """
    from ml_metadata.proto import metadata_store_pb2 as mlmd
    from tfx.orchestration import metadata

    if settings.backend == "sqlite":
        return metadata.sqlite_metadata_connection_config(str(folder / METADATA_FILE))
    password = os.environ.get(settings.password_variable)
    if password is None:
        raise PasswordMissingError(
            f"metadata.password_variable: the environment has no {settings.password_variable}; "
            f"export it with the password of {settings.user} at {settings.host}"
        )
    port = settings.port or _DEFAULT_PORT[settings.backend]
    server = {"host": settings.host, "user": settings.user}
    if settings.backend == "mysql":
        config = mlmd.MySQLDatabaseConfig(port=port, database=settings.database, password=password, **server)
        return mlmd.ConnectionConfig(mysql=config)
    quoted = "'" + password.replace("\\", "\\\\").replace("'", "\\'") + "'"  # ML Metadata pastes it unquoted
    config = mlmd.PostgreSQLDatabaseConfig(
        port=str(port), dbname=settings.database, password=quoted, skip_db_creation=True, **server
    )
    return mlmd.ConnectionConfig(postgresql=config)
