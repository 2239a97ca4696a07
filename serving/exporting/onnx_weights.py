"""Stores an ONNX model's weights in fewer bits; the runtime widens them when it loads the model."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_WITH_WEIGHTS: Final = frozenset({"Conv", "Gemm", "MatMul"})
_SMALLEST: Final = 1024
"""Values below which a weight is left as it is."""


def shrink(model: Any, *, bits: int) -> None:
    """Change the weights of convolutions and matrix products in an onnx.ModelProto to float16 or int8.

    int8, for `bits` of 8, has a scale for each output channel.
    """
    from onnx import TensorProto, helper, numpy_helper

    used = {name for node in model.graph.node if node.op_type in _WITH_WEIGHTS for name in node.input}
    of_convolutions = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    nodes = []
    for tensor in list(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if tensor.name not in used or values.dtype != np.float32 or values.size < _SMALLEST:
            continue
        name, stored = tensor.name, f"{tensor.name}_stored"
        model.graph.initializer.remove(tensor)
        if bits == 16:
            parts: dict[str, npt.NDArray[Any]] = {stored: values.astype(np.float16)}
            nodes.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
        else:
            axis = 0 if name in of_convolutions else values.ndim - 1
            levels, scales = _quantised(values, axis)
            parts = {stored: levels, f"{name}_scale": scales}
            nodes.append(helper.make_node("DequantizeLinear", list(parts), [name], axis=axis))
        model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in parts.items())
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def _quantised(values: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """(levels of -127 to 127, scales along `axis`)."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    scales = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127.0, np.float32(1e-12)).astype(np.float32)
    return np.round(values / scales).astype(np.int8), scales.ravel()
