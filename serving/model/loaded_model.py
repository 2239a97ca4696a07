"""Loads a SavedModel and runs its signatures in a session, as TensorFlow Serving does."""

import contextlib
import copy
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from runtime.places import pattern_problem
from schema.signatures import FALSE_ALARM_RATE, LATENT, RECONSTRUCTION, SCORE
from serving.errors import ServingError, Status, invalid_argument

Arrays = dict[str, np.ndarray[Any, Any]]

SMALL_BYTES = 16 * 1024
NO_OP_SIGNATURE = "__saved_model_init_op"
_OF_AUTOENCODERS = {SCORE, LATENT, RECONSTRUCTION}
"""Outputs of signatures whose inputs must be finite; other models may expect NaN."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature: tensor name, NumPy dtype, and shape (None: unknown)."""

    tensor_name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @property
    def is_batched(self) -> bool:
        """Whether the first dimension may have any size."""
        return self.shape is not None and len(self.shape) > 0 and self.shape[0] is None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` may be fed here."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want in (None, have) for want, have in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Signature:
    """A signature of a model with its inputs and outputs by name."""

    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]

    @property
    def is_batched(self) -> bool:
        """Whether requests can be joined along the first dimension and their outputs split again."""
        return all(info.is_batched for info in (*self.inputs.values(), *self.outputs.values()))


class LoadedModel:
    """A SavedModel's `serve` graph in its own session; `close` frees its memory."""

    def __init__(self, folder: Path) -> None:
        """Load `folder`; raises whatever TensorFlow raises if that fails."""
        # Two models share the device while one replaces the other, so neither may reserve all of its memory.
        options = tf.compat.v1.ConfigProto(gpu_options=tf.compat.v1.GPUOptions(allow_growth=True))
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=options)
        try:
            with self._session.graph.as_default(), _readable_path(folder) as path:
                # TensorFlow Serving uses this loader and graph; `tf.saved_model.load` builds a different graph.
                meta_graph = tf.compat.v1.saved_model.loader.load(self._session, [tf.saved_model.SERVING], path)
        except BaseException:
            self._session.close()
            raise
        # Copies: a part of a message keeps the whole message in memory, and Python's copies of the graph's functions,
        # which the session does not use, take a third of a small model's memory.
        self.signature_defs = {
            name: copy.deepcopy(definition)
            for name, definition in meta_graph.signature_def.items()
            if name != NO_OP_SIGNATURE
        }
        getattr(self._session.graph, "_functions", {}).clear()
        self.signatures = {name: _signature(name, definition) for name, definition in self.signature_defs.items()}
        self._lock = threading.Lock()
        self._callables: dict[tuple[str, tuple[str, ...], bool], Callable[..., list[Any]]] = {}

    def run(self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        """The `outputs` by name for complete, validated `inputs`."""
        call = self._callable(signature, outputs, is_small=_size_bytes(inputs) <= SMALL_BYTES)
        try:
            return dict(zip(outputs, call(*(inputs[name] for name in signature.inputs)), strict=True))
        except tf.errors.OpError as error:
            raise _serving_error(error) from None
        except (TypeError, ValueError) as error:
            raise invalid_argument(str(error)) from None

    def close(self) -> None:
        """Release the session's variables and threads; the model cannot run afterwards."""
        self._callables.clear()
        self._session.close()

    def _callable(self, signature: Signature, outputs: tuple[str, ...], *, is_small: bool) -> Callable[..., list[Any]]:
        """A function of the signature's inputs, in order, that returns `outputs`, in order."""
        key = (signature.name, outputs, is_small)
        with self._lock:
            if key not in self._callables:
                options = config_pb2.CallableOptions(
                    feed=[info.tensor_name for info in signature.inputs.values()],
                    fetch=[signature.outputs[name].tensor_name for name in outputs],
                )
                # Handing a small run's operations to other threads would take longer than running them here.
                options.run_options.inter_op_thread_pool = -1 if is_small else 0
                # `Session.run` looks up its feeds and fetches on every call, which takes longer than a small model.
                self._callables[key] = self._session._make_callable_from_options(options)
            return self._callables[key]


@contextlib.contextmanager
def _readable_path(folder: Path) -> Iterator[str]:
    """The folder's path, or that of a link to it if TensorFlow would read the path as a pattern."""
    if not pattern_problem(str(folder)):
        yield str(folder)
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "model"
        link.symlink_to(folder.absolute())
        yield str(link)


def _size_bytes(inputs: Arrays) -> int:
    return sum(sum(map(len, a.flat)) if a.dtype.kind == "O" else a.nbytes for a in inputs.values())


def checked_inputs(signature: Signature, inputs: Arrays) -> Arrays:
    """The same `inputs`; INVALID_ARGUMENT if names, dtypes or shapes do not match the signature."""
    if inputs.keys() != signature.inputs.keys():
        extra = ",".join(sorted(inputs.keys() - signature.inputs.keys()))
        missing = ",".join(sorted(signature.inputs.keys() - inputs.keys()))
        raise invalid_argument(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
            f"len({{{','.join(sorted(inputs))}}}) != len({{{','.join(sorted(signature.inputs))}}}). "
            f"Sent extra: {{{extra}}}. Missing but required: {{{missing}}}."
        )
    for name, array in inputs.items():
        info = signature.inputs[name]
        if array.dtype != info.dtype:
            raise invalid_argument(f"input {name}: dtype is {array.dtype}, expected {info.dtype}")
        if not info.accepts(array.shape):
            wanted = [-1 if size is None else size for size in info.shape or ()]
            raise invalid_argument(f"input {name}: shape {list(array.shape)} is not compatible with {wanted}")
        if array.dtype.kind == "f" and signature.outputs.keys() & _OF_AUTOENCODERS:
            _check_values(name, array)
    sizes = {name: array.shape[0] for name, array in inputs.items() if signature.inputs[name].is_batched}
    if len(set(sizes.values())) > 1:
        raise invalid_argument(f"inputs have different batch sizes: {sizes}")
    return inputs


def _check_values(name: str, array: np.ndarray[Any, Any]) -> None:
    is_valid = np.isfinite(array)
    wanted = "a finite number"
    if name == FALSE_ALARM_RATE:
        is_valid, wanted = (array > 0) & (array < 1), "between 0 and 1"
    if not is_valid.all():
        index = np.unravel_index(int(np.argmin(is_valid)), array.shape)
        place = "".join(f"[{number}]" for number in index)
        raise invalid_argument(f"input {name}{place}: {array[index]:g} is not {wanted}")


def checked_outputs(signature: Signature, output_filter: Sequence[str]) -> tuple[str, ...]:
    """The outputs to fetch, all of them if the filter is empty; INVALID_ARGUMENT for an unknown name."""
    if not output_filter:
        return tuple(sorted(signature.outputs))
    for name in output_filter:
        if name not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {{{','.join(sorted(signature.outputs))}}}."
            )
    if len(set(output_filter)) != len(output_filter):
        raise invalid_argument(f"duplicate output tensor alias: {','.join(output_filter)}")
    return tuple(sorted(output_filter))


def _signature(name: str, definition: Any) -> Signature:
    sides = (definition.inputs, definition.outputs)
    return Signature(name, *({key: _tensor_info(info) for key, info in side.items()} for side in sides))


def _tensor_info(info: Any) -> TensorInfo:
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else int(dim.size) for dim in info.tensor_shape.dim)
    return TensorInfo(info.name, np.dtype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype), shape)


def _serving_error(error: tf.errors.OpError) -> ServingError:
    """An error with TensorFlow's code if it is one of Status, else INTERNAL, and the first line of the message."""
    status = next((status for status in Status if status.grpc_number == error.error_code), Status.INTERNAL)
    lines = [line.strip() for line in error.message.splitlines() if line.strip()]
    informative = [line for line in lines if not line.startswith(("Graph execution error", "[[", "Detected at node"))]
    return ServingError(status, (informative or lines or [type(error).__name__])[0])
