"""`s3://`, `minio://` and `gs://` through Apache Arrow, which TFX brings along.

Credentials and region come from the usual AWS and Google variables; AWS_ENDPOINT_URL names another server, such as
MinIO's.
"""

import functools
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias, cast

REHEARSAL_STORE_VARIABLE: Final = "KUBEFLOW_REHEARSAL_STORE"
"""Environment variable: the folder that stands for the object store in a rehearsal; unset in a pod."""


class ObjectStatus(NamedTuple):
    """What os.stat_result says of a file, by the same names."""

    st_size: int
    st_mtime_ns: int
    st_mode: int = stat.S_IFREG


@dataclass(frozen=True)
class RemotePath:
    """`scheme://bucket/a/b`, with those of pathlib.Path's methods that reading needs; no path ends in a slash."""

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.uri}/{name}")

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self.uri.rpartition("/")[0])

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return bool(self._info().is_file)

    def is_dir(self) -> bool:
        """Whether anything lies below: an object store knows no folders."""
        from pyarrow.fs import FileType  # type: ignore[import-untyped]

        return bool(self._info().type == FileType.Directory)

    def stat(self) -> ObjectStatus:
        """Raises FileNotFoundError where there is no such object."""
        info = self._info()
        if not info.is_file:
            raise FileNotFoundError(2, "no such object", self.uri)
        return ObjectStatus(info.size, info.mtime_ns)

    lstat = stat

    def open(self, mode: str = "rb") -> BinaryIO:
        return cast(BinaryIO, store(_scheme(self.uri)).open_input_file(_key(self.uri)))

    def read_bytes(self) -> bytes:
        with self.open() as stream:
            return stream.read()

    def files_below(self) -> Iterator[tuple[str, ObjectStatus]]:
        """Relative path and status of every object below, from one listing."""
        from pyarrow.fs import FileSelector

        key = _key(self.uri)
        for info in store(_scheme(self.uri)).get_file_info(FileSelector(key, recursive=True, allow_not_found=True)):
            if info.is_file:
                yield info.path[len(key) + 1 :], ObjectStatus(info.size, info.mtime_ns)

    def _info(self) -> Any:
        return store(_scheme(self.uri)).get_file_info(_key(self.uri))


AnyPath: TypeAlias = Path | RemotePath


def as_path(place: str) -> AnyPath:
    """A local path, made absolute, or one in an object store."""
    return RemotePath(place.rstrip("/")) if "://" in place else Path(place).expanduser().absolute()


def connection_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """What Arrow's S3 client is told: nothing where AWS's own defaults do."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {}
    if endpoint:
        scheme, _, address = endpoint.rpartition("://")
        options = {"endpoint_override": address.rstrip("/"), "scheme": scheme or "https"}
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if region or endpoint:  # without one, Arrow asks AWS where the bucket is
        options["region"] = region or "us-east-1"
    return options


def connect(environment: Mapping[str, str], scheme: str = "s3") -> Any:
    """Arrow's file system whose paths are `bucket/key`; in a rehearsal, a folder that holds the buckets."""
    import pyarrow.fs as arrow  # type: ignore[import-untyped]

    folder = environment.get(REHEARSAL_STORE_VARIABLE)
    if folder:
        return arrow.SubTreeFileSystem(folder, arrow.LocalFileSystem())
    if scheme == "gs":
        return arrow.GcsFileSystem()
    return arrow.S3FileSystem(**connection_options(environment))


@functools.cache
def store(scheme: str = "s3") -> Any:
    """This process's connection, made once."""
    return connect(os.environ, scheme)


def _scheme(uri: str) -> str:
    """Raises OSError for one that nobody here speaks."""
    scheme = uri.partition("://")[0]
    if scheme not in ("s3", "minio", "gs"):
        raise OSError(22, "only s3://, minio:// and gs:// can be read", uri)
    return "gs" if scheme == "gs" else "s3"


def _key(uri: str) -> str:
    """`s3://bucket/a/b` -> `bucket/a/b`."""
    return uri.partition("://")[2]
