"""`s3://` and `minio://` for TFX's file functions; TensorFlow itself reads `gs://` but no S3."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.fs as arrow  # type: ignore[import-untyped]
from tfx.dsl.io import filesystem, filesystem_registry

from runtime.object_store import REHEARSAL_STORE_VARIABLE, store

SCHEMES = ("s3://", "minio://")
_PREFER_OVER_TENSORFLOW = -1


def _key(path: Any) -> str:
    """`s3://bucket/a/b/` -> `bucket/a/b`."""
    text = path.decode() if isinstance(path, bytes) else str(path)
    return text.partition("://")[2].rstrip("/")


def _info(path: Any) -> Any:
    return store().get_file_info(_key(path))


def _children(path: Any) -> list[Any]:
    """Nothing, not an error, for a folder that holds nothing: in an object store there is no difference."""
    found: list[Any] = store().get_file_info(arrow.FileSelector(_key(path), allow_not_found=True))
    return found


class ObjectStore(filesystem.Filesystem):
    """TFX's filesystem interface; a folder exists as long as it holds something."""

    SUPPORTED_SCHEMES = list(SCHEMES)

    @staticmethod
    def open(name: Any, mode: str = "r") -> Any:
        if "w" in mode:
            stream = store().open_output_stream(_key(name))
        else:
            if _info(name).type != arrow.FileType.File:
                raise filesystem.NotFoundError(f"{name}: no such object")
            stream = store().open_input_file(_key(name))
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding="utf-8")

    @staticmethod
    def copy(src: Any, dst: Any, overwrite: bool = False) -> None:
        if not overwrite and ObjectStore.exists(dst):
            raise OSError(f"{dst}: exists already")
        store().copy_file(_key(src), _key(dst))

    @staticmethod
    def exists(path: Any) -> bool:
        return bool(_info(path).type != arrow.FileType.NotFound)

    @staticmethod
    def glob(pattern: Any) -> list[Any]:
        raise NotImplementedError(f"{pattern}: no patterns in an object store; list a folder instead")

    @staticmethod
    def isdir(path: Any) -> bool:
        return bool(_info(path).type == arrow.FileType.Directory)

    @staticmethod
    def listdir(path: Any) -> list[Any]:
        return sorted(child.base_name for child in _children(path))

    @staticmethod
    def makedirs(path: Any) -> None:
        """Nothing in an object store, where folders come with the objects in them."""
        if isinstance(store(), arrow.SubTreeFileSystem):
            store().create_dir(_key(path), recursive=True)

    @staticmethod
    def mkdir(path: Any) -> None:
        ObjectStore.makedirs(path)

    @staticmethod
    def remove(path: Any) -> None:
        store().delete_file(_key(path))

    @staticmethod
    def rename(src: Any, dst: Any, overwrite: bool = False) -> None:
        ObjectStore.copy(src, dst, overwrite)
        ObjectStore.remove(src)

    @staticmethod
    def rmtree(path: Any) -> None:
        store().delete_dir(_key(path))

    @staticmethod
    def stat(path: Any) -> Any:
        return _info(path)

    @staticmethod
    def walk(top: Any, topdown: bool = True, onerror: Any = None) -> Iterator[Any]:
        children = _children(top)
        folders = sorted(c.base_name for c in children if c.type == arrow.FileType.Directory)
        yield top, folders, sorted(c.base_name for c in children if c.type == arrow.FileType.File)
        for folder in folders:
            yield from ObjectStore.walk(f"{str(top).rstrip('/')}/{folder}")


def register(environment: Mapping[str, str]) -> None:
    """Make TFX's file functions use it for SCHEMES; in a rehearsal for gs:// too, which is then a folder."""
    if environment.get(REHEARSAL_STORE_VARIABLE):
        ObjectStore.SUPPORTED_SCHEMES = [*SCHEMES, "gs://"]
    filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(ObjectStore, priority=_PREFER_OVER_TENSORFLOW)
