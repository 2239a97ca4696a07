"""Makes TFX's file functions use `runtime.object_store` for s3:// and minio://, which TensorFlow cannot read."""

import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

from tfx.dsl.io import filesystem, filesystem_registry

from runtime.object_store import REHEARSAL_STORE_VARIABLE, S3_SCHEMES, SCHEMES, RemotePath

_PREFER_OVER_TENSORFLOW = -1


def _path(given: Any) -> RemotePath:
    return RemotePath(os.fsdecode(given).rstrip("/"))


class ObjectStore(filesystem.Filesystem):
    """TFX's filesystem interface; a folder exists as long as it contains an object."""

    SUPPORTED_SCHEMES = list(S3_SCHEMES)

    @staticmethod
    def open(name: Any, mode: str = "r") -> Any:
        path = _path(name)
        if "w" not in mode and not path.is_file():
            raise filesystem.NotFoundError(f"{name}: no such object")
        stream = path.open("wb" if "w" in mode else "rb")
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding="utf-8")

    @staticmethod
    def copy(src: Any, dst: Any, overwrite: bool = False) -> None:
        if not overwrite and ObjectStore.exists(dst):
            raise OSError(f"{dst}: already exists")
        _path(src).copy_to(_path(dst))

    @staticmethod
    def exists(path: Any) -> bool:
        return _path(path).exists()

    @staticmethod
    def glob(pattern: Any) -> list[Any]:
        raise NotImplementedError(f"{pattern}: patterns are not supported in an object store; list a folder instead")

    @staticmethod
    def isdir(path: Any) -> bool:
        return _path(path).is_dir()

    @staticmethod
    def listdir(path: Any) -> list[Any]:
        folders, files = _path(path).children()
        return sorted([*folders, *files])

    @staticmethod
    def makedirs(path: Any) -> None:
        _path(path).mkdir()

    @staticmethod
    def mkdir(path: Any) -> None:
        _path(path).mkdir()

    @staticmethod
    def remove(path: Any) -> None:
        _path(path).unlink()

    @staticmethod
    def rename(src: Any, dst: Any, overwrite: bool = False) -> None:
        ObjectStore.copy(src, dst, overwrite)
        ObjectStore.remove(src)

    @staticmethod
    def rmtree(path: Any) -> None:
        _path(path).rmtree()

    @staticmethod
    def stat(path: Any) -> Any:
        return _path(path).stat()

    @staticmethod
    def walk(top: Any, topdown: bool = True, onerror: Any = None) -> Iterator[Any]:
        folders, files = _path(top).children()
        yield top, folders, files
        for folder in folders:
            yield from ObjectStore.walk(str(_path(top) / folder))


def register(environment: Mapping[str, str]) -> None:
    """Register it with TFX for S3; in a rehearsal also for gs://, which is then a local folder."""
    if environment.get(REHEARSAL_STORE_VARIABLE):
        ObjectStore.SUPPORTED_SCHEMES = list(SCHEMES)
    filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(ObjectStore, priority=_PREFER_OVER_TENSORFLOW)
