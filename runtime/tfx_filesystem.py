"""Makes TFX's file functions use `runtime.object_store` for s3:// and minio://, which TensorFlow cannot read."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.fs as arrow  # type: ignore[import-untyped]
from tfx.dsl.io import filesystem, filesystem_registry

from runtime.object_store import REHEARSAL_STORE_VARIABLE, S3_SCHEMES, SCHEMES, locate, make_folder

_PREFER_OVER_TENSORFLOW = -1


def _info(path: Any) -> Any:
    store, key = locate(path)
    return store.get_file_info(key)


def _children(path: Any) -> list[Any]:
    """Empty for a folder that does not exist: in an object store, every folder without objects is missing."""
    store, key = locate(path)
    found: list[Any] = store.get_file_info(arrow.FileSelector(key, allow_not_found=True))
    return sorted(found, key=lambda child: child.base_name)


class ObjectStore(filesystem.Filesystem):
    """TFX's filesystem interface; a folder exists as long as it contains an object."""

    SUPPORTED_SCHEMES = list(S3_SCHEMES)

    @staticmethod
    def open(name: Any, mode: str = "r") -> Any:
        store, key = locate(name)
        if "w" in mode:
            stream = store.open_output_stream(key)
        elif _info(name).is_file:
            stream = store.open_input_file(key)
        else:
            raise filesystem.NotFoundError(f"{name}: no such object")
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding="utf-8")

    @staticmethod
    def copy(src: Any, dst: Any, overwrite: bool = False) -> None:
        if not overwrite and ObjectStore.exists(dst):
            raise OSError(f"{dst}: already exists")
        store, key = locate(src)
        store.copy_file(key, locate(dst)[1])

    @staticmethod
    def exists(path: Any) -> bool:
        return bool(_info(path).type != arrow.FileType.NotFound)

    @staticmethod
    def glob(pattern: Any) -> list[Any]:
        raise NotImplementedError(f"{pattern}: patterns are not supported in an object store; list a folder instead")

    @staticmethod
    def isdir(path: Any) -> bool:
        return bool(_info(path).type == arrow.FileType.Directory)

    @staticmethod
    def listdir(path: Any) -> list[Any]:
        return [child.base_name for child in _children(path)]

    @staticmethod
    def makedirs(path: Any) -> None:
        make_folder(*locate(path))

    mkdir = makedirs

    @staticmethod
    def remove(path: Any) -> None:
        store, key = locate(path)
        store.delete_file(key)

    @staticmethod
    def rename(src: Any, dst: Any, overwrite: bool = False) -> None:
        ObjectStore.copy(src, dst, overwrite)
        ObjectStore.remove(src)

    @staticmethod
    def rmtree(path: Any) -> None:
        store, key = locate(path)
        store.delete_dir(key)

    @staticmethod
    def stat(path: Any) -> Any:
        return _info(path)

    @staticmethod
    def walk(top: Any, topdown: bool = True, onerror: Any = None) -> Iterator[Any]:
        children = _children(top)
        folders = [child.base_name for child in children if not child.is_file]
        yield top, folders, [child.base_name for child in children if child.is_file]
        for folder in folders:
            yield from ObjectStore.walk(f"{str(top).rstrip('/')}/{folder}")


def register(environment: Mapping[str, str]) -> None:
    """Register it with TFX for S3; in a rehearsal also for gs://, which is then a local folder."""
    if environment.get(REHEARSAL_STORE_VARIABLE):
        ObjectStore.SUPPORTED_SCHEMES = list(SCHEMES)
    filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(ObjectStore, priority=_PREFER_OVER_TENSORFLOW)
