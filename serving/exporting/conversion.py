"""Converts the exported function to the format of another runtime."""

import logging
import tempfile
from pathlib import Path
from typing import Any, Final

from runtime.errors import UserError
from schema.signatures import SCORE_SIGNATURE
from serving.exporting.decision import NotExportableError
from serving.exporting.onnx_weights import shrink
from serving.exporting.runtimes import MissingRuntimeError, Precision, Target

_OPSET: Final = 18


class ConversionError(UserError):
    """A converter failed; the message is its reason."""


def convert(function: Any, path: Path, *, target: Target, precision: Precision = "float32") -> None:
    """Write `function`, from `decision_of`, to `path`. Raises NotExportableError that names unsupported operations.

    float16 and int8 are those of the weights; what is computed from them depends on the runtime.
    """
    try:
        {"onnx": _to_onnx, "litert": _to_litert, "openvino": _to_openvino}[target](function, path, precision)
    except ImportError as error:
        raise MissingRuntimeError(error) from error


def _to_onnx(function: Any, path: Path, precision: Precision) -> None:
    import onnx
    import tf2onnx  # type: ignore[import-untyped]

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # an unknown operation is reported below
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=_OPSET)
    unknown = sorted({node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)})
    if unknown:
        raise NotExportableError(f"onnx has no operations for TensorFlow's {', '.join(unknown)}")
    if precision != "float32":
        shrink(model, bits=16 if precision == "float16" else 8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _to_litert(function: Any, path: Path, precision: Precision) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.model, module.decide = function.model, function
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={SCORE_SIGNATURE: function})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, [SCORE_SIGNATURE])
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            path.write_bytes(converter.convert())
        except Exception as error:  # the converter's own type has no public name
            raise NotExportableError(f"litert cannot represent the model: {error}") from error


def _to_openvino(function: Any, path: Path, precision: Precision) -> None:
    if precision == "int8":
        raise NotExportableError("openvino in int8 is not supported; use --precision float16, or --to onnx or litert")
    import openvino  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "model.onnx"
        _to_onnx(function, onnx_file, "float32")
        openvino.save_model(openvino.convert_model(str(onnx_file)), str(path), compress_to_fp16=precision == "float16")
