"""Weights in fewer bits, compared with NumPy, in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.exporting.onnx_weights import shrink

WEIGHTS = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32) * np.geomspace(
    0.001, 10, 32, dtype=np.float32
)
OFFSETS = np.random.default_rng(1).normal(size=(5, 2048)).astype(np.float32)


def model():
    """x @ WEIGHTS, and the constant OFFSETS, which is no weight."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Identity", ["o"], ["z"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, [5, 2048]),
        ],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(OFFSETS, "o")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(("bits", "kind"), [(16, np.float16), (8, np.int8)])
def test_only_weights_are_stored_in_fewer_bits(bits, kind):
    shrunk = model()
    shrink(shrunk, bits=bits)
    onnx.checker.check_model(shrunk)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in shrunk.graph.initializer}
    assert stored["w_stored"].dtype == kind
    x = np.random.default_rng(2).normal(size=(1, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(shrunk.SerializeToString(), providers=["CPUExecutionProvider"])
    y, z = session.run(None, {"x": x})
    assert np.array_equal(z, OFFSETS)
    steps = np.abs(WEIGHTS).max(axis=0) / 127.0 if bits == 8 else np.abs(WEIGHTS).max(axis=0) * 2.0**-11
    assert (np.abs(y - x @ WEIGHTS) <= 0.5 * steps * np.abs(x).sum() * 2 + 1e-5).all()
    assert not np.array_equal(y, x @ WEIGHTS)
