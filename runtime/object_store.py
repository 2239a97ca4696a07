"""Reads and writes object stores (s3://, minio://, gs://) through Apache Arrow, which TFX installs.

Credentials and region come from the usual AWS and Google variables; AWS_ENDPOINT_URL selects another S3 server, such as
MinIO's.
"""

import functools
import logging
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias, cast

S3_SCHEMES: Final = ("s3://", "minio://")
SCHEMES: Final = (*S3_SCHEMES, "gs://")
REHEARSAL_STORE_VARIABLE: Final = "KUBEFLOW_REHEARSAL_STORE"
"""Environment variable: the folder that replaces the object store in a rehearsal; unset in a pod."""


_SKIPPED: Final = "%s: objects whose keys contain // cannot be read and are skipped; rename them"
_ENDLESS_LISTING: Final = "maximum nesting depth"
"""Arrow's error for a key such as `a//b`: it takes the empty name for `a` itself, again and again."""
_LOG = logging.getLogger(__name__)


class ObjectStatus(NamedTuple):
    """The fields of os.stat_result that an object has."""

    st_size: int
    st_mtime_ns: int
    st_mode: int = stat.S_IFREG


@dataclass(frozen=True)
class RemotePath:
    """`scheme://bucket/a/b` with the needed methods of pathlib.Path; paths do not end in a slash."""

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
        return bool(self._info().type.name != "NotFound")

    def is_file(self) -> bool:
        return bool(self._info().is_file)

    def is_dir(self) -> bool:
        """Whether there are objects below; an object store has no empty folders."""
        return bool(self._info().type.name == "Directory")

    def stat(self) -> ObjectStatus:
        """Raises FileNotFoundError if there is no such object."""
        info = self._info()
        if not info.is_file:
            raise FileNotFoundError(2, "no such object", self.uri)
        return ObjectStatus(info.size, info.mtime_ns)

    lstat = stat

    def open(self, mode: str = "rb") -> BinaryIO:
        file_system, key = locate(self.uri)
        return cast(BinaryIO, file_system.open_input_file(key))

    def read_bytes(self) -> bytes:
        with self.open() as stream:
            return stream.read()

    def files_below(self) -> Iterator[tuple[str, ObjectStatus]]:
        """Relative path and status of every object below, from one listing."""
        for name, info in _files_below(*locate(self.uri)):
            yield name, ObjectStatus(info.size, info.mtime_ns)

    def _info(self) -> Any:
        file_system, key = locate(self.uri)
        return file_system.get_file_info(key)


AnyPath: TypeAlias = Path | RemotePath


def as_path(place: str) -> AnyPath:
    """A RemotePath, or a local path made absolute."""
    return RemotePath(place.rstrip("/")) if "://" in place else Path(place).expanduser().absolute()


def connection_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Options of Arrow's S3 client; empty for AWS's own defaults."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {}
    if endpoint:
        scheme, _, address = endpoint.rpartition("://")
        options = {"endpoint_override": address.rstrip("/"), "scheme": scheme or "https"}
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if region or endpoint:  # without a region, Arrow asks AWS for the bucket's
        options["region"] = region or "us-east-1"
    return options


def connect(environment: Mapping[str, str], scheme: str = "s3") -> Any:
    """Arrow's file system, whose paths are `bucket/key`; in a rehearsal, the folder that holds the buckets."""
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


def locate(uri: str | bytes) -> tuple[Any, str]:
    """This process's connection, and the path in it: `s3://bucket/a/b/` -> `bucket/a/b`.

    Raises OSError for an unsupported scheme.
    """
    uri = os.fsdecode(uri)
    if not uri.startswith(SCHEMES):
        raise OSError(22, f"only {', '.join(SCHEMES[:-1])} and {SCHEMES[-1]} can be read", uri)
    return store("s3" if uri.startswith(S3_SCHEMES) else "gs"), _key(uri)


def upload(store: Any, local: Path, uri: str) -> None:
    """Copy a local file, or a folder's files, to `uri`; an object store has no empty folders."""
    for path in [local] if local.is_file() else sorted(local.rglob("*")):
        if path.is_file():
            key = _key(uri) if path == local else f"{_key(uri)}/{path.relative_to(local).as_posix()}"
            make_folder(store, key.rpartition("/")[0])
            with path.open("rb") as source, store.open_output_stream(key) as target:
                shutil.copyfileobj(source, target)


def download(store: Any, uri: str, folder: Path) -> None:
    """Copy all files below `uri` to a local folder, which is not created if there are none."""
    for name, info in _files_below(store, _key(uri)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.open_input_stream(info.path) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)


def make_folder(store: Any, key: str) -> None:
    """Create a folder in a rehearsal; an object store needs none."""
    from pyarrow.fs import SubTreeFileSystem

    if isinstance(store, SubTreeFileSystem):
        store.create_dir(key, recursive=True)


def _files_below(store: Any, key: str) -> Iterator[tuple[str, Any]]:
    from pyarrow.fs import FileSelector

    try:
        found = store.get_file_info(FileSelector(key, recursive=True, allow_not_found=True))
    except OSError as error:
        if _ENDLESS_LISTING not in str(error):
            raise
        found = _walk(store, key)
    for info in found:
        if info.is_file and "//" in info.path:  # listed by newer versions of Arrow
            _LOG.warning(_SKIPPED, info.path)
        elif info.is_file:
            yield info.path[len(key) + 1 :], info


def _walk(store: Any, key: str) -> Iterator[Any]:
    """All objects below, folder by folder, without those whose key has an empty part, which Arrow cannot read."""
    from pyarrow.fs import FileSelector

    for info in store.get_file_info(FileSelector(key, allow_not_found=True)):
        if info.is_file:
            yield info
        elif info.path.rstrip("/") == key or "//" in info.path:
            _LOG.warning(_SKIPPED, info.path)
        else:
            yield from _walk(store, info.path)


def _key(uri: str) -> str:
    return uri.partition("://")[2].rstrip("/")
