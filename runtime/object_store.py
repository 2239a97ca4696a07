"""Reads and writes object stores (s3://, minio://, gs://) through Apache Arrow, which TFX installs.

Credentials and region come from the usual AWS and Google variables; AWS_ENDPOINT_URL selects another S3 server, such as
MinIO's.
"""

import functools
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, TypeAlias, cast

S3_SCHEMES: Final = ("s3://", "minio://")
SCHEMES: Final = (*S3_SCHEMES, "gs://")
REHEARSAL_STORE_VARIABLE: Final = "KUBEFLOW_REHEARSAL_STORE"
"""Environment variable: the folder that replaces the object store in a rehearsal; unset in a pod."""


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
        from pyarrow.fs import FileType  # type: ignore[import-untyped]

        return bool(self._info().type != FileType.NotFound)

    def is_file(self) -> bool:
        return bool(self._info().is_file)

    def is_dir(self) -> bool:
        """Whether there are objects below; an object store has no empty folders."""
        from pyarrow.fs import FileType

        return bool(self._info().type == FileType.Directory)

    def stat(self) -> ObjectStatus:
        """Raises FileNotFoundError if there is no such object."""
        info = self._info()
        if not info.is_file:
            raise FileNotFoundError(2, "no such object", self.uri)
        return ObjectStatus(info.size, info.mtime_ns)

    lstat = stat

    def open(self, mode: Literal["rb", "wb"] = "rb") -> BinaryIO:
        open_stream = self._store.open_output_stream if mode == "wb" else self._store.open_input_file
        return cast(BinaryIO, open_stream(_key(self.uri)))

    def read_bytes(self) -> bytes:
        with self.open() as stream:
            return stream.read()

    def children(self) -> tuple[list[str], list[str]]:
        """Sorted names of the folders and of the files directly below, from one listing."""
        found = _listing(self._store, self.uri, recursive=False)
        folders = sorted(info.base_name for info in found if not info.is_file)
        return folders, sorted(info.base_name for info in found if info.is_file)

    def files_below(self) -> Iterator[tuple[str, ObjectStatus]]:
        """Relative path and status of every object below, from one listing."""
        start = len(_key(self.uri)) + 1
        for info in _listing(self._store, self.uri, recursive=True):
            if info.is_file:
                yield info.path[start:], ObjectStatus(info.size, info.mtime_ns)

    def mkdir(self) -> None:
        """Create the folder if a local folder replaces the object store; a store's folders need no creation."""
        _make_folder(self._store, _key(self.uri))

    def copy_to(self, target: "RemotePath") -> None:
        """Copy within the store."""
        self._store.copy_file(_key(self.uri), _key(target.uri))

    def unlink(self) -> None:
        self._store.delete_file(_key(self.uri))

    def rmtree(self) -> None:
        """Delete all objects below."""
        self._store.delete_dir(_key(self.uri))

    @property
    def _store(self) -> Any:
        return store(_scheme(self.uri))

    def _info(self) -> Any:
        return self._store.get_file_info(_key(self.uri))


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


def upload(store: Any, folder: Path, uri: str) -> None:
    """Copy a local folder's files to `uri`; empty folders are left out, since an object store has none."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = f"{_key(uri)}/{path.relative_to(folder).as_posix()}"
            _make_folder(store, key.rpartition("/")[0])
            with path.open("rb") as source, store.open_output_stream(key) as target:
                shutil.copyfileobj(source, target)


def download(store: Any, uri: str, folder: Path) -> None:
    """Copy all files below `uri` to a local folder, which is not created if there are none."""
    for info in _listing(store, uri, recursive=True):
        if info.is_file:
            path = folder / info.path.removeprefix(_key(uri)).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            with store.open_input_stream(info.path) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)


def _listing(store: Any, uri: str, *, recursive: bool) -> list[Any]:
    """Arrow's description of what is below; empty for a folder that does not exist."""
    from pyarrow.fs import FileSelector

    found: list[Any] = store.get_file_info(FileSelector(_key(uri), recursive=recursive, allow_not_found=True))
    return found


def _make_folder(store: Any, key: str) -> None:
    from pyarrow.fs import SubTreeFileSystem

    if isinstance(store, SubTreeFileSystem):
        store.create_dir(key, recursive=True)


def _scheme(uri: str) -> str:
    """Arrow's name for the scheme; raises OSError for an unsupported one."""
    if not uri.startswith(SCHEMES):
        raise OSError(22, f"only {', '.join(SCHEMES[:-1])} and {SCHEMES[-1]} can be read", uri)
    return "s3" if uri.startswith(S3_SCHEMES) else "gs"


def _key(uri: str) -> str:
    """`s3://bucket/a/b` -> `bucket/a/b`."""
    return uri.partition("://")[2]
