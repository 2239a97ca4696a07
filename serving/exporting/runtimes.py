"""Runs an exported file in its own runtime, without TensorFlow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from images.decoding import shown
from images.reading import Reading
from runtime.errors import UsageError

Target = Literal["onnx", "litert", "openvino"]
TARGETS: Final[tuple[Target, ...]] = get_args(Target)
Precision = Literal["float32", "float16", "int8"]
SUFFIXES: Final[dict[Target, str]] = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
Levels = npt.NDArray[Any]
Outputs = dict[str, npt.NDArray[Any]]
Run = Callable[[Levels], Outputs]
"""Levels [1, height, width, C] -> the outputs by name."""
_RED, _GREEN, _BLUE, _HALF = 19595, 38470, 7471, 0x8000


class MissingRuntimeError(UsageError):
    """The packages of the extra `export` are not installed."""

    def __init__(self, error: ImportError) -> None:
        super().__init__(f"{error.name} is not installed; run: pip install 'tfx-image-autoencoder[export]'")


class ExportedModel:
    """An exported file, loaded: call it with an encoded image."""

    def __init__(self, path: Path) -> None:
        """Load `path`. Raises UsageError for another kind of file, MissingRuntimeError, and what the runtime raises."""
        target = target_of(path)
        try:
            self._run, shape, kind = {"onnx": _onnx, "litert": _litert, "openvino": _openvino}[target](path)
        except ImportError as error:
            raise MissingRuntimeError(error) from error
        self._channels = int(shape[-1])
        self._kind = np.dtype(kind)
        self.reading = Reading(depth=8 if self._kind == np.uint8 else 16)

    def __call__(self, content: bytes) -> Outputs:
        """The outputs by name, each with a first dimension of 1. Raises UnreadableImageError."""
        return self._run(levels_of(content, self.reading, channels=self._channels))


def target_of(path: Path) -> Target:
    """The runtime of an exported file, by its suffix; UsageError if there is none."""
    for target, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return target
    raise UsageError(f"{path}: not an exported model: its name must end in {', '.join(SUFFIXES.values())}")


def levels_of(content: bytes, reading: Reading, *, channels: int) -> Levels:
    """What an image file shows, in the model's channels: [1, height, width, C], uint8 or uint16 as `reading` has it."""
    pixels = shown(content, reading).pixels
    if reading.depth == 16 and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * 257
    if channels == 1 and pixels.shape[2] == 3:
        red, green, blue = np.moveaxis(pixels.astype(np.int64), 2, 0)
        pixels = ((red * _RED + green * _GREEN + blue * _BLUE + _HALF) >> 16).astype(pixels.dtype)[..., np.newaxis]
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], channels)))[np.newaxis]


def _onnx(path: Path) -> tuple[Run, Any, Any]:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    kind = {"tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16}[given.type]
    return lambda levels: dict(zip(names, session.run(names, {given.name: levels}), strict=True)), given.shape, kind


def _litert(path: Path) -> tuple[Run, Any, Any]:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    interpreter = Interpreter(str(path))
    run = interpreter.get_signature_runner()
    [(name, given)] = run.get_input_details().items()

    def run_copied(levels: Levels) -> Outputs:
        return {key: np.array(values) for key, values in run(**{name: levels}).items()}

    return run_copied, given["shape"], given["dtype"]


def _openvino(path: Path) -> tuple[Run, Any, Any]:
    import openvino  # type: ignore[import-untyped]

    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    [given] = model.inputs

    def run(levels: Levels) -> Outputs:
        return {name: np.array(values) for output, values in model([levels]).items() for name in output.get_names()}

    return run, [given.partial_shape[-1].get_length()], given.element_type.to_dtype()
