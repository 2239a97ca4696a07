"""Reads the tensors of PyTorch's `.pth` files without PyTorch and without executing anything in them.

It reads both layouts of `torch.save`: the older one (a few pickles, then the storages) and the zip archive. A pickle
can name any function and call it; this reader refuses every name but those that describe tensors.
"""

import collections
import io
import math
import pickle
import pickletools
import reprlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from trainer.backbones.errors import BackboneError

Array: TypeAlias = npt.NDArray[Any]

_DTYPES: Final = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
}
_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_ZIP: Final = b"PK\x03\x04"
_MOST_DIMENSIONS: Final = 8
_MOST_TEXT: Final = 500
"""Bound on what a message quotes of a file."""
_MOST_OBJECTS: Final = 1_000_000
"""Bound on the indices of a pickle's memo, for which Python reserves memory at once."""
_MOST_TUPLES: Final = 20_000
"""Bound on a pickle's tuples: Python hashes a key of tuples within tuples on the stack, which a million overflow.

Each tensor takes four.
"""
_QUOTED: Final = reprlib.Repr()
"""Writes values of a file in messages: shortened, and objects within objects only to a depth."""
_QUOTED.maxstring = _QUOTED.maxother = _MOST_TEXT


class _RefusedError(Exception):
    """What a file contains that this reader does not accept."""


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    strides: tuple[int, ...]
    """In numbers, not bytes."""


@dataclass(frozen=True, slots=True)
class _Rebuild:
    """Stands for `torch._utils._rebuild_tensor_v2`; without attributes, so that a pickle cannot change it."""

    def __call__(self, storage: Any, offset: Any, size: Any, strides: Any, *unused: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise _RefusedError("a tensor without a storage")
        size, strides = tuple(size), tuple(strides)
        if any(type(number) is not int or number < 0 for number in (offset, *size, *strides)):
            size, strides, offset = map(_QUOTED.repr, (size, strides, offset))
            raise _RefusedError(f"a tensor of size {size} with strides {strides} and offset {offset}")
        if len(size) != len(strides) or len(size) > _MOST_DIMENSIONS:
            raise _RefusedError(f"a tensor of {len(size)} dimensions with {len(strides)} strides")
        return _Tensor(storage, offset, size, strides)


class _Unpickler(pickle.Unpickler):
    """Admits OrderedDict, rebuilt tensors and storages; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise _RefusedError(f"the name {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """("storage", type, key, device, length), and in older files the view of another storage, or None."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise _RefusedError("a reference that is not a whole storage")
        _, dtype, key, _, length = pid[:5]
        if not isinstance(dtype, np.dtype) or not isinstance(key, str) or type(length) is not int or length < 0:
            raise _RefusedError(f"a storage with key {_QUOTED.repr(key)} and length {_QUOTED.repr(length)}")
        return _Storage(key, dtype, length)


def read_weights(path: Path | str) -> dict[str, Array]:
    """Every tensor of a `.pth` file by its name, as read-only arrays that share the file's bytes.

    Raises BackboneError, which names the file and what was refused, for anything that is not a dictionary of tensors
    within their storages.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackboneError(f"cannot read the weights {path}: {error.strerror or error}") from error
    try:
        return _read_archive(content) if content.startswith(_ZIP) else _read_pickles(content)
    except _RefusedError as refused:
        raise BackboneError(
            f"{path}: refused {str(refused)[:_MOST_TEXT]}; nothing in the file was executed. Use a file that holds "
            "only a dictionary of tensors, as torch.save(model.state_dict(), PATH) writes it, from a source you trust"
        ) from refused


def _read_pickles(content: bytes) -> dict[str, Array]:
    """The older layout: magic number, protocol, system, tensors, keys of storages, then each storage with its count."""
    stream = io.BytesIO(content)
    if _unpickle(stream) != _MAGIC:
        raise _RefusedError("a file that does not begin as PyTorch's do")
    protocol, system = _unpickle(stream), _unpickle(stream)
    if protocol != _PROTOCOL or not isinstance(system, Mapping) or system.get("little_endian") is not True:
        raise _RefusedError(
            f"protocol {_QUOTED.repr(protocol)} of system {_QUOTED.repr(system)}, instead of {_PROTOCOL} with "
            "little-endian numbers"
        )
    tensors, keys = _tensors(_unpickle(stream)), _unpickle(stream)
    declared = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    storages = {}
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in declared:
            raise _RefusedError(f"a storage {_QUOTED.repr(key)} that belongs to no tensor")
        count = int.from_bytes(stream.read(8), "little")
        if count != declared[key].length:
            raise _RefusedError(f"storage {key}, which holds {count} numbers instead of {declared[key].length}")
        storages[key] = _numbers(content, stream.tell(), declared[key])
        stream.seek(storages[key].nbytes, io.SEEK_CUR)
    return {name: _strided(name, tensor, storages.get) for name, tensor in tensors.items()}


def _read_archive(content: bytes) -> dict[str, Array]:
    """The zip layout: `NAME/data.pkl` with the tensors, and `NAME/data/KEY` for each storage, stored uncompressed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
                raise _RefusedError("an archive with compressed members")
            if sum(info.file_size for info in members.values()) > len(content):
                raise _RefusedError("an archive whose members overlap")
            read = {
                name: archive.read(info) for name, info in members.items() if name.startswith(("data", "byteorder"))
            }
    except _RefusedError:
        raise
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise _RefusedError(f"a damaged archive ({error})") from error
    if "data.pkl" not in read:
        raise _RefusedError("an archive without data.pkl, which PyTorch's have")
    if read.get("byteorder", b"little") != b"little":
        raise _RefusedError("an archive whose numbers are not little-endian")
    tensors = _tensors(_unpickle(io.BytesIO(read["data.pkl"])))
    storages = {
        tensor.storage.key: _numbers(read.get(f"data/{tensor.storage.key}", b""), 0, tensor.storage)
        for tensor in tensors.values()
    }
    return {name: _strided(name, tensor, storages.get) for name, tensor in tensors.items()}


def _unpickle(stream: BinaryIO) -> Any:
    """The next pickle of a stream. Raises _RefusedError for a name that is not admitted, and for damaged pickles."""
    start = stream.tell()
    try:
        tuples = 0
        for opcode, argument, _ in pickletools.genops(stream):
            tuples += opcode.name.startswith("TUPLE")
            if tuples > _MOST_TUPLES:
                raise _RefusedError(f"a pickle with more than {_MOST_TUPLES:,} tuples")
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > _MOST_OBJECTS:
                raise _RefusedError(f"a pickle with more than {_MOST_OBJECTS:,} objects")
        stream.seek(start)
        return _Unpickler(stream).load()
    except _RefusedError:
        raise
    except Exception as error:  # the documentation of pickle names no complete list for damaged data
        raise _RefusedError(
            f"a damaged or truncated pickle at byte {start} ({type(error).__name__}: {error})"
        ) from error


def _tensors(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, Mapping):
        raise _RefusedError(f"a {type(state).__name__} instead of a dictionary of tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise _RefusedError(
                f"the entry {_QUOTED.repr(name)}, which is a {type(tensor).__name__} instead of a tensor"
            )
    return dict(state)


def _numbers(content: bytes, start: int, storage: _Storage) -> Array:
    if storage.length * storage.dtype.itemsize > len(content) - start:
        raise _RefusedError(f"storage {storage.key}: the file ends before its {storage.length} numbers do")
    return np.frombuffer(content, storage.dtype, storage.length, start)


def _strided(name: str, tensor: _Tensor, storage_of: Callable[[str], Array | None]) -> Array:
    """The tensor as a view of its storage. Raises _RefusedError where it would reach beyond, or repeat numbers."""
    storage = storage_of(tensor.storage.key)
    if storage is None or storage.dtype != tensor.storage.dtype:
        raise _RefusedError(f"{name}, whose storage {tensor.storage.key} is not in the file with its type")
    count = math.prod(tensor.size)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.size, tensor.strides, strict=True))
    if count > storage.size or (count and last >= storage.size):
        raise _RefusedError(
            f"{name}: size {tensor.size}, strides {tensor.strides} and offset {tensor.offset} reach beyond the "
            f"{storage.size} numbers of its storage"
        )
    in_bytes = [stride * storage.itemsize for stride in tensor.strides]
    try:
        return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.size, in_bytes, writeable=False)
    except (ValueError, OverflowError) as error:  # of dimensions that hold at most one number
        raise _RefusedError(f"{name}: size {tensor.size} with strides {tensor.strides} ({error})") from error
